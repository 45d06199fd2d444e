#include "control/command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static const char sample[] = "[global]\n"
                             "workers = 2\n"
                             "max_connections = 1000\n"
                             "[listener web]\n"
                             "bind = 127.0.0.1:8080\n"
                             "upstream = app\n"
                             "max_headers = 4\n"
                             "[listener other]\n"
                             "bind = 127.0.0.1:8081\n"
                             "service = one\n"
                             "[route api]\n"
                             "listener = web\n"
                             "host = api.x\n"
                             "path = /v1/\n"
                             "upstream = off 0, app 5\n"
                             "strip_prefix = /v1\n"
                             "set_request_header = X-From: $client_ip $server\n"
                             "[route old]\n"
                             "path = /old\n"
                             "redirect = 301 https://$host$uri\n"
                             "[route gone]\n"
                             "path = /gone\n"
                             "respond = 410 $path is gone\n"
                             "[upstream app]\n"
                             "balance = first\n"
                             "server = 127.0.0.1:9001\n"
                             "server = 127.0.0.1:9002\n"
                             "[upstream off]\n"
                             "server = 127.0.0.1:9003\n"
                             "[service one]\n"
                             "type = respond\n";

struct file {
    int fd;
    char path[32];
};

static struct file make_file(const char *text) {
    struct file file = {.fd = memfd_create("command", MFD_CLOEXEC)};
    assert_true(file.fd >= 0);
    assert_int_equal(write(file.fd, text, strlen(text)), strlen(text));
    (void)snprintf(file.path, sizeof file.path, "/proc/self/fd/%d", file.fd);
    return file;
}

/* Standard output and errors of what runs between these two, as text. */
static int capture_fd;
static int saved_fds[2];

static void capture_start(void) {
    capture_fd = memfd_create("output", MFD_CLOEXEC);
    assert_true(capture_fd >= 0);
    for (int i = 0; i < 2; i++) {
        (void)fflush(i == 0 ? stdout : stderr);
        saved_fds[i] = dup(i + 1);
        assert_true(saved_fds[i] >= 0 && dup2(capture_fd, i + 1) == i + 1);
    }
}

static void capture_end(char *text, size_t size) {
    for (int i = 0; i < 2; i++) {
        (void)fflush(i == 0 ? stdout : stderr);
        assert_int_equal(dup2(saved_fds[i], i + 1), i + 1);
        assert_int_equal(close(saved_fds[i]), 0);
    }
    ssize_t got = pread(capture_fd, text, size - 1, 0);
    assert_true(got >= 0);
    text[got] = '\0';
    assert_int_equal(close(capture_fd), 0);
}

#define WORDS_MAX 8

/* `words` end with NULL. */
static void assert_explains(const char *const *words, int expected_status, const char *expected) {
    struct file file = make_file(sample);
    /* getopt(3) reorders pointers, and reads the word before: the command's own. */
    char memory[WORDS_MAX][64] = {"explain"};
    char *argv[WORDS_MAX + 1] = {memory[0]};
    int count = 1;
    for (; *words; words++, count++) {
        assert_true(count < WORDS_MAX);
        (void)snprintf(memory[count], sizeof memory[count], "%s", *words);
        argv[count] = memory[count];
    }
    char found[4096];
    capture_start();
    int status = command_explain(file.path, count - 1, argv + 1);
    capture_end(found, sizeof found);
    assert_int_equal(close(file.fd), 0);
    if (!strstr(found, expected)) fail_msg("expected:\n%s\nfound:\n%s", expected, found);
    assert_int_equal(status, expected_status);
}

#define EXPLAINS(status, expected, ...)                                                            \
    assert_explains((const char *[]){__VA_ARGS__, NULL}, status, expected)

static void explain_shows_route_server_and_head(void **state) {
    (void)state;
    EXPLAINS(0,
             "action    upstream\n"
             "upstream  app (of off 0, app 5)\n"
             "server    127.0.0.1:9001 (one of 2 by first)\n"
             "sends     GET /a?b=c HTTP/1.1\n"
             "          Host: api.x\n"
             "          X-A: b\n"
             "          Via: 1.1 weir\n"
             "          X-Forwarded-For: ::1\n"
             "          X-Forwarded-Proto: http\n"
             "          X-Forwarded-Host: api.x\n"
             "          X-From: ::1 127.0.0.1:9001\n",
             "GET", "http://api.x/v1/a?b=c#d", "-HX-A: b", "--client", "::1", "--listener", "web");
}

static void explain_finds_the_listener_by_port_or_name(void **state) {
    (void)state;
    EXPLAINS(0, "listener  web (by the port of the URL)\n", "GET", "http://a:8080");
    EXPLAINS(0, "listener  other (by the port of the URL)\n", "GET", "http://[::1]:8081/");
    EXPLAINS(0, "listener  web (the first; --listener NAME takes another)\n", "GET", "/");
    EXPLAINS(0, "listener  other (as asked for)\n", "GET", "/", "--listener", "other");
    EXPLAINS(2, "there is no listener nope\n", "GET", "/", "--listener", "nope");
}

static void explain_shows_answers_of_weir_itself(void **state) {
    (void)state;
    EXPLAINS(0,
             "action    redirect\nanswer    301 Moved Permanently\n"
             "location  https://a/old/x?y\n",
             "GET", "http://A:8080/old/x?y");
    EXPLAINS(0, "action    respond\nanswer    410 Gone\nbody      /gone is gone\n", "GET", "/gone");
    EXPLAINS(0,
             "route     none matches: the listener's own action\naction    service\n"
             "service   one (respond)\nanswer    200 OK\n",
             "GET", "http://a:8081/");
}

static void explain_refuses_what_the_listener_would(void **state) {
    (void)state;
    EXPLAINS(1, "refused   400 ", "GET", "/", "-H", "Host: a b");
    EXPLAINS(1, "refused   400 ", "GET", "/", "-H", "Content-Length: +5");
    EXPLAINS(1, "refused   431 ", "GET", "/", "-HA: 1", "-HA: 1", "-HA: 1", "-HA: 1");
    EXPLAINS(1, "refused   400 ", "G(T", "/");
}

static void explain_says_how_it_is_used(void **state) {
    (void)state;
    EXPLAINS(2, "a METHOD and a URL are needed", "GET");
    EXPLAINS(2, "more than a METHOD and a URL", "GET", "/", "/");
    EXPLAINS(2, "the URL must begin with http://, https:// or /", "GET", "ftp://a/");
    EXPLAINS(2, "bad option", "GET", "/", "--nope");
    EXPLAINS(2, "--client needs an IP address", "GET", "/", "--client", "1.2.3.4:5");
}

static void check_counts_what_it_found(void **state) {
    (void)state;
    struct file file = make_file(sample);
    char found[4096];
    capture_start();
    int status = command_check(file.path);
    capture_end(found, sizeof found);
    assert_int_equal(status, 0);
    assert_non_null(
        strstr(found, ": ok: 2 listeners, 3 routes, 2 upstreams, 1 service, 2 workers\n"));
    assert_int_equal(close(file.fd), 0);
}

static void check_prints_every_error_and_gives_1(void **state) {
    (void)state;
    struct file file = make_file("[lisener a]\n[global]\nwrkers = 1\n");
    char found[4096];
    capture_start();
    int status = command_check(file.path);
    capture_end(found, sizeof found);
    assert_int_equal(status, 1);
    assert_non_null(strstr(found, ":1: lisener a: unknown section (did you mean \"listener\"?)\n"));
    assert_non_null(strstr(found, ":3: global.wrkers: unknown key (did you mean \"workers\"?)\n"));
    assert_int_equal(close(file.fd), 0);
}

static void doctor_names_a_bad_file_and_goes_on(void **state) {
    (void)state;
    char found[8192];
    capture_start();
    int status = command_doctor("/nonexistent/weir.ini");
    capture_end(found, sizeof found);
    assert_int_equal(status, 1);
    assert_non_null(strstr(found, "fail  configuration: /nonexistent/weir.ini has errors"));
    assert_non_null(strstr(found, "io_uring"));
}

static void doctor_says_one_line_a_check(void **state) {
    (void)state;
    struct file file = make_file(sample);
    char found[8192];
    capture_start();
    (void)command_doctor(file.path); /* the machine decides */
    capture_end(found, sizeof found);
    for (const char *line = found; *line != '\0'; line = strchr(line, '\n') + 1) {
        assert_true(strncmp(line, "ok    ", 6) == 0 || strncmp(line, "warn  ", 6) == 0 ||
                    strncmp(line, "fail  ", 6) == 0);
        assert_non_null(strchr(line, '\n'));
    }
    const char *names[] = {"kernel: ",
                           "io_uring: ",
                           "kernel.io_uring_disabled: ",
                           "RLIMIT_NOFILE: ",
                           "RLIMIT_MEMLOCK: ",
                           "fs.nr_open: ",
                           "fs.file-max: ",
                           "net.core.somaxconn: ",
                           "net.ipv4.ip_local_port_range: ",
                           "net.ipv4.tcp_tw_reuse: ",
                           "CPUs: "};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!strstr(found, names[i])) fail_msg("no line of %s in:\n%s", names[i], found);
    }
    assert_int_equal(close(file.fd), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(explain_shows_route_server_and_head),
        cmocka_unit_test(explain_finds_the_listener_by_port_or_name),
        cmocka_unit_test(explain_shows_answers_of_weir_itself),
        cmocka_unit_test(explain_refuses_what_the_listener_would),
        cmocka_unit_test(explain_says_how_it_is_used),
        cmocka_unit_test(check_counts_what_it_found),
        cmocka_unit_test(check_prints_every_error_and_gives_1),
        cmocka_unit_test(doctor_names_a_bad_file_and_goes_on),
        cmocka_unit_test(doctor_says_one_line_a_check),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
