#include "base/log.h"

#include "base/clock.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LEVELS (LOG_ERROR + 1)

static const char *const words[LEVELS] = {"debug", "info", "warn", "error"};

/* Set by the main thread, read by all: relaxed is enough for a filter. */
enum log_level log_lowest = LOG_INFO;

/* The place of every LOG_LINES-th line. Lines are numbered by who queues them; that of number n is
 * in lap n / LOG_LINES. */
struct log_slot {
    uint64_t turn; /* twice the lap that may fill it; one more: filled in that lap */
    uint64_t lost; /* lines lost before this one */
    size_t len;
    char text[LOG_LINE_SIZE];
};

static struct {
    struct log_slot slots[LOG_LINES];
    uint64_t queued;  /* lines that were given a slot */
    uint64_t written; /* and those that have left it; by the log's thread alone */
    uint64_t lost;
    uint64_t told;  /* of the lost ones; likewise */
    uint32_t news;  /* a futex: 1 when there is something to do */
    uint32_t steps; /* a futex: moves with each line written, and at the end */
    bool awaited;   /* somebody waits for that */
    bool running;
    bool ending;
    bool ended;
    pthread_t thread;
} queue;

void log_set_level(enum log_level level) { __atomic_store_n(&log_lowest, level, __ATOMIC_RELAXED); }

bool log_level_parse(const char *word, enum log_level *level) {
    if (!word) return false;
    for (int i = 0; i < LEVELS; i++) {
        if (strcmp(word, words[i]) != 0) continue;
        *level = (enum log_level)i;
        return true;
    }
    return false;
}

static size_t put_start(char *line, size_t size, enum log_level level) {
    struct timespec now = {0};
    /* A line with a wrong time is better than no line: the result is not looked at. */
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct clock_date date = clock_date_of(now.tv_sec);
    int len = snprintf(line, size, "%04u-%02u-%02uT%02u:%02u:%02u.%03uZ %s ", date.year, date.month,
                       date.day, date.hour, date.minute, date.second,
                       (unsigned)(now.tv_nsec / 1000000), words[level]);
    return len > 0 ? (size_t)len : 0;
}

uint64_t log_dropped(void) { return __atomic_load_n(&queue.lost, __ATOMIC_RELAXED); }

static void lose_line(void) { (void)__atomic_fetch_add(&queue.lost, 1, __ATOMIC_RELAXED); }

/* Waits for whoever reads stderr, also where who started weir has made it non-blocking (a flag that
 * is not ours alone, open(2)). false: it cannot be written. */
static bool write_line(const char *line, size_t len) {
    while (len != 0) {
        ssize_t part = write(STDERR_FILENO, line, len);
        if (part >= 0) {
            line += part;
            len -= (size_t)part;
        } else if (errno == EAGAIN) {
            struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
            (void)poll(&room, 1, -1); /* write(2) says what is wrong */
        } else if (errno != EINTR) {
            return false;
        }
    }
    return true;
}

/* `lost`: how many were lost before what is written next. It may be less than what was told: who
 * queues a line reads it behind taking its slot, and what others lose meanwhile is told first. */
static void tell_lost(uint64_t lost) {
    if (lost <= queue.told) return;
    char line[256];
    size_t len = put_start(line, sizeof line, LOG_WARN);
    int more = snprintf(line + len, sizeof line - len,
                        "%llu lines of the log were lost: stderr was not read, or is full\n",
                        (unsigned long long)(lost - queue.told));
    if (write_line(line, len + (size_t)more)) queue.told = lost;
}

/* The futex is a matter of memory, not of time: what was queued before is seen by who is woken. */
static void wake_writer(void) {
    if (__atomic_exchange_n(&queue.news, 1, __ATOMIC_ACQ_REL) == 0)
        (void)syscall(SYS_futex, &queue.news, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void await_news(void) {
    while (__atomic_exchange_n(&queue.news, 0, __ATOMIC_ACQ_REL) == 0)
        (void)syscall(SYS_futex, &queue.news, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0);
}

/* Takes the next slot for itself, unless a line is still in it. Never waits: who comes between
 * has taken it, and there is another. */
static bool queue_line(const char *line, size_t len) {
    uint64_t number = __atomic_load_n(&queue.queued, __ATOMIC_RELAXED);
    for (;;) {
        struct log_slot *slot = &queue.slots[number % LOG_LINES];
        uint64_t turn = __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE);
        uint64_t mine = number / LOG_LINES * 2;
        if (turn < mine) return false;
        if (turn > mine) {
            number = __atomic_load_n(&queue.queued, __ATOMIC_RELAXED);
        } else if (__atomic_compare_exchange_n(&queue.queued, &number, number + 1, true,
                                               __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
            slot->lost = log_dropped();
            slot->len = len;
            memcpy(slot->text, line, len);
            __atomic_store_n(&slot->turn, mine + 1, __ATOMIC_RELEASE);
            return true;
        }
    }
}

/* Whoever waits for the log sees that it goes on. */
static void note_step(void) {
    (void)__atomic_fetch_add(&queue.steps, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&queue.awaited, __ATOMIC_SEQ_CST))
        (void)syscall(SYS_futex, &queue.steps, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static bool write_next(void) {
    struct log_slot *slot = &queue.slots[queue.written % LOG_LINES];
    uint64_t turn = queue.written / LOG_LINES * 2;
    if (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) != turn + 1) return false;
    tell_lost(slot->lost);
    if (!write_line(slot->text, slot->len)) lose_line();
    __atomic_store_n(&slot->turn, turn + 2, __ATOMIC_RELEASE);
    __atomic_store_n(&queue.written, queue.written + 1, __ATOMIC_RELEASE);
    note_step();
    return true;
}

static void *write_queue(void *unused) {
    (void)unused;
    bool is_last = false;
    while (!is_last) {
        await_news();
        is_last = __atomic_load_n(&queue.ending, __ATOMIC_ACQUIRE);
        while (write_next())
            continue;
        tell_lost(log_dropped());
    }
    __atomic_store_n(&queue.ended, true, __ATOMIC_RELEASE);
    note_step();
    return NULL;
}

int log_start(void) {
    queue.ending = queue.ended = false;
    int error = pthread_create(&queue.thread, NULL, write_queue, NULL);
    if (error == 0) __atomic_store_n(&queue.running, true, __ATOMIC_RELEASE);
    return -error;
}

/* Until so many lines have been written, or the thread has ended. false: the reader of stderr
 * stands still. */
static bool wait_for_writer(uint64_t lines) {
    static const struct timespec patience = {.tv_sec = LOG_PATIENCE_S};
    __atomic_store_n(&queue.awaited, true, __ATOMIC_SEQ_CST);
    for (;;) {
        uint32_t steps = __atomic_load_n(&queue.steps, __ATOMIC_SEQ_CST);
        bool has_ended = __atomic_load_n(&queue.ended, __ATOMIC_ACQUIRE);
        if (has_ended || __atomic_load_n(&queue.written, __ATOMIC_ACQUIRE) >= lines) return true;
        long error =
            syscall(SYS_futex, &queue.steps, FUTEX_WAIT_PRIVATE, steps, &patience, NULL, 0);
        if (error < 0 && errno == ETIMEDOUT) return false;
    }
}

bool log_flush(void) {
    if (!__atomic_load_n(&queue.running, __ATOMIC_ACQUIRE)) return true;
    return wait_for_writer(__atomic_load_n(&queue.queued, __ATOMIC_RELAXED));
}

void log_stop(void) {
    if (!queue.running) return;
    __atomic_store_n(&queue.ending, true, __ATOMIC_RELEASE);
    wake_writer();
    /* Else it stays where it is, and so does the queue: the process is about to end. */
    if (!wait_for_writer(UINT64_MAX)) return;
    (void)pthread_join(queue.thread, NULL); /* EINVAL, ESRCH: cannot be */
    __atomic_store_n(&queue.running, false, __ATOMIC_RELEASE);
}

static void put_line(const char *line, size_t len) {
    if (!__atomic_load_n(&queue.running, __ATOMIC_ACQUIRE)) {
        if (!write_line(line, len)) lose_line();
        return;
    }
    bool is_late = __atomic_load_n(&queue.ending, __ATOMIC_RELAXED);
    if (is_late || !queue_line(line, len)) lose_line();
    wake_writer();
}

void log_line(enum log_level level, const char *format, ...) {
    if (!log_is_on(level)) return;
    int saved_errno = errno;
    char line[LOG_LINE_SIZE];
    size_t start = put_start(line, sizeof line, level);

    errno = saved_errno; /* for %m */
    va_list arguments;
    va_start(arguments, format);
    int text_len = vsnprintf(line + start, sizeof line - start, format, arguments);
    va_end(arguments);

    size_t len = start + (text_len > 0 ? (size_t)text_len : 0);
    if (len > sizeof line - 1) len = sizeof line - 1; /* the NUL's place is for the line's end */
    for (size_t i = start; i < len; i++) {
        unsigned char c = (unsigned char)line[i];
        if (c < ' ' || c == 0x7f) line[i] = '?';
    }
    line[len++] = '\n';
    put_line(line, len);
    errno = saved_errno;
}
