#include "net/ktls.h"

#include "base/check.h"

#include <endian.h>
#include <errno.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TCP_ULP
#define TCP_ULP 31
#endif

#define KTLS_HEADER 5 /* of a record (RFC 8446 section 5.1) */
#define KTLS_TAG 16   /* of each of these ciphers */
/* Reads of where a stream is, until no acknowledgement came in between. */
#define KTLS_TRIES 64

/* What TLS_TX takes, by cipher_type. All begin with struct tls_crypto_info. */
union ktls_keys {
    struct tls_crypto_info type;
    struct tls12_crypto_info_aes_gcm_128 gcm_128;
    struct tls12_crypto_info_aes_gcm_256 gcm_256;
    struct tls12_crypto_info_chacha20_poly1305 chacha20;
};

bool ktls_probe(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return false;
    /* Known, but of use to a connection only: ENOTCONN. Else ENOENT. */
    bool known =
        setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0 || errno == ENOTCONN;
    (void)close(fd); /* never used */
    return known;
}

static bool ktls_acked(int fd, uint64_t *acked) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return false;
    *acked = info.tcpi_bytes_acked;
    return true;
}

/* How long the stream of TCP is: what was acknowledged, then what was not. An acknowledgement in
 * between makes it look shorter than it is, never longer. */
static bool ktls_written(int fd, uint64_t *written) {
    int unacked = 0;
    if (!ktls_acked(fd, written) || ioctl(fd, SIOCOUTQ, &unacked) < 0) return false;
    *written += (uint64_t)unacked;
    return true;
}

static bool ktls_written_exactly(int fd, uint64_t *written) {
    for (int i = 0; i < KTLS_TRIES; i++) {
        uint64_t before;
        uint64_t after;
        if (!ktls_acked(fd, &before) || !ktls_written(fd, written)) return false;
        if (!ktls_acked(fd, &after)) return false;
        if (before == after) return true;
    }
    return false;
}

/* 0: a cipher that is not known here. */
static socklen_t ktls_keys_size(const union ktls_keys *keys) {
    switch (keys->type.cipher_type) {
    case TLS_CIPHER_AES_GCM_128:
        return sizeof keys->gcm_128;
    case TLS_CIPHER_AES_GCM_256:
        return sizeof keys->gcm_256;
    case TLS_CIPHER_CHACHA20_POLY1305:
        return sizeof keys->chacha20;
    default:
        return 0;
    }
}

/* The number of the next record, which stands last. */
static uint64_t ktls_record(const union ktls_keys *keys, size_t size) {
    uint64_t number;
    CHECK(size > sizeof number && size <= sizeof *keys);
    memcpy(&number, (const char *)keys + size - sizeof number, sizeof number);
    return be64toh(number);
}

/* TLS 1.3 adds the type of the record, AES-GCM in TLS 1.2 its nonce (RFC 8446 section 5.2, RFC 5288
 * section 3). */
static uint32_t ktls_overhead(const struct tls_crypto_info *type) {
    if (type->version == TLS_1_3_VERSION) return KTLS_HEADER + KTLS_TAG + 1;
    bool sends_nonce = type->cipher_type != TLS_CIPHER_CHACHA20_POLY1305;
    return KTLS_HEADER + KTLS_TAG + (sends_nonce ? TLS_CIPHER_AES_GCM_128_IV_SIZE : 0);
}

int ktls_start(struct ktls *ktls, int fd, struct bytes keys, uint64_t plain) {
    union ktls_keys copy = {0};
    CHECK(keys.len <= sizeof copy);
    memcpy(&copy, keys.ptr, keys.len);
    CHECK(keys.len != 0 && keys.len == ktls_keys_size(&copy));
    *ktls = (struct ktls){.plain = plain,
                          .records = ktls_record(&copy, keys.len),
                          .overhead = ktls_overhead(&copy.type),
                          .keys_size = (uint32_t)keys.len};
    explicit_bzero(&copy, sizeof copy);
    if (!ktls_written_exactly(fd, &ktls->written)) return -EBUSY;
    if (setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") < 0) return -errno;
    if (setsockopt(fd, SOL_TLS, TLS_TX, keys.ptr, (socklen_t)keys.len) < 0) return -errno;
    return 0;
}

int ktls_say(struct ktls *ktls, int fd, uint8_t type, struct bytes bytes) {
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof type)] = {0};
    struct iovec vector = {(void *)(uintptr_t)bytes.ptr, bytes.len};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_TLS;
    header->cmsg_type = TLS_SET_RECORD_TYPE;
    header->cmsg_len = CMSG_LEN(sizeof type);
    memcpy(CMSG_DATA(header), &type, sizeof type);
    if (sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) return -errno;
    ktls->said += bytes.len; /* a record is taken whole */
    return 0;
}

void ktls_push(int fd) {
    int off = 0;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_CORK, &off, sizeof off); /* tcp(7): sends what waits */
}

bool ktls_is_sent(const struct ktls *ktls, int fd, uint64_t plain) {
    union ktls_keys now = {0};
    socklen_t size = ktls->keys_size;
    if (getsockopt(fd, SOL_TLS, TLS_TX, &now, &size) < 0) return true;
    uint64_t records = ktls_record(&now, size) - ktls->records;
    explicit_bzero(&now, sizeof now);
    uint64_t written;
    if (!ktls_written(fd, &written)) return true;
    uint64_t due = plain - ktls->plain + ktls->said + records * ktls->overhead;
    return written - ktls->written >= due;
}
