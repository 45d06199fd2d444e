/* compat.h: io_uring constants newer than the headers of liburing 2.3, from the kernel's uapi
 * (linux/io_uring.h). */
#ifndef WEIR_RING_COMPAT_H
#define WEIR_RING_COMPAT_H

#include <liburing.h>

#ifndef IORING_FEAT_MIN_TIMEOUT
#define IORING_FEAT_MIN_TIMEOUT (1U << 15)
#endif
#ifndef IORING_FEAT_NO_IOWAIT
#define IORING_FEAT_NO_IOWAIT (1U << 17)
#endif
#ifndef IORING_ENTER_NO_IOWAIT
#define IORING_ENTER_NO_IOWAIT (1U << 7)
#endif

/* The word that newer headers call optlen (io_uring_prep_recv(3), "multishot"). */
static inline __u32 *compat_optlen(struct io_uring_sqe *sqe) { return &sqe->file_index; }

/* struct io_uring_getevents_arg with the word that 2.3 calls pad (io_uring_enter(2),
 * IORING_ENTER_EXT_ARG). */
struct compat_getevents_arg {
    uint64_t sigmask;
    uint32_t sigmask_size;
    uint32_t min_wait_us;
    uint64_t timeout;
};

#endif
