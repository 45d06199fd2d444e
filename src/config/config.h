/* config.h: one immutable snapshot of the configuration, as plain structs.
 *
 * Built by config_load (ini.c reads, check.c verifies and resolves references and addresses), never
 * changed afterwards, shared by all workers. All strings and arrays belong to the snapshot and end
 * with config_free. Order of listeners, routes and so on is file order. Durations are milliseconds,
 * sizes bytes. Longer than 200 lines because these structs point at each other: one page shows all.
 */
#ifndef WEIR_CONFIG_CONFIG_H
#define WEIR_CONFIG_CONFIG_H

#include "base/bytes.h"
#include "base/cidr.h"
#include "base/log.h"
#include "config/template.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

/* A resolved socket address with its text as in the file ("127.0.0.1:8080", "[::1]:80",
 * "unix:/run/x"). */
struct config_address {
    struct sockaddr_storage storage;
    socklen_t size;
    uint32_t line; /* of a bind: where it stands */
    char *text;
};

/* Keys of [defaults], with what a listener or an upstream says instead already merged in. */
struct config_limits {
    uint64_t timeout_request_ms;
    uint64_t timeout_client_ms;
    uint64_t timeout_keepalive_ms;
    uint64_t timeout_handshake_ms;
    uint64_t timeout_connect_ms;
    uint64_t timeout_queue_ms;
    uint64_t timeout_server_ms;
    uint64_t timeout_tunnel_ms;
    uint64_t min_read_rate;   /* bytes/s, 0: off */
    uint64_t max_header_size; /* bytes */
    uint64_t max_headers;     /* count */
    uint64_t max_target;      /* bytes */
    uint64_t max_body_size;   /* bytes, 0: no limit */
    /* HTTP/2. Counts; but for streams and continuations of 10 s. */
    uint64_t h2_max_streams;
    uint64_t h2_max_resets;
    uint64_t h2_max_made_resets;
    uint64_t h2_max_continuations;
    uint64_t h2_max_settings;
    uint64_t h2_max_pings;
    uint64_t h2_max_empty_data;
    uint64_t h2_max_priority;
    uint64_t h2_max_window_updates;
    uint64_t h2_max_stalled;
    uint64_t h2_max_closed;
};

enum config_websocket_mode {
    CONFIG_WEBSOCKET_OFF, /* refused */
    CONFIG_WEBSOCKET_RAW,
    CONFIG_WEBSOCKET_CHECKED
};

/* What is done with an upgrade to WebSocket. */
struct config_websocket {
    uint64_t mode;        /* enum config_websocket_mode */
    uint64_t message_max; /* bytes, 0: no limit */
    uint64_t ping_ms;     /* 0: off */
};
/* In a route: what it does not say itself is the listener's. */
#define CONFIG_UNSAID UINT64_MAX

/* A header line of the configuration: set, add or remove. */
enum config_edit_kind { CONFIG_EDIT_SET, CONFIG_EDIT_ADD, CONFIG_EDIT_REMOVE };
struct config_edit {
    enum config_edit_kind kind;
    char *name;
    struct template value; /* empty for REMOVE */
};
struct config_edits {
    struct config_edit *items;
    uint32_t count;
};

enum config_service_type {
    CONFIG_SERVICE_RESPOND, /* answers requests: for mode = http */
    CONFIG_SERVICE_ECHO     /* gives bytes back: for mode = tcp */
};

struct config_service {
    char *name;
    uint32_t index;
    uint32_t line;
    enum config_service_type type;
    /* type = respond */
    uint16_t status;
    struct config_edits headers; /* ADD only */
    char *body;
    size_t body_size;
};

/* A value with the line it stands in, for errors that only whoever uses it can find; text NULL: not
 * said. */
struct config_entry {
    char *text;
    uint32_t line;
};

struct config_certificate {
    struct config_entry file;
    struct config_entry key;         /* the same file where the certificate's has it as well */
    struct config_entry ocsp_staple; /* may be NULL */
};

enum config_client_auth {
    CONFIG_CLIENT_AUTH_OFF,
    CONFIG_CLIENT_AUTH_OPTIONAL,
    CONFIG_CLIENT_AUTH_REQUIRE
};

/* How listeners speak TLS. */
struct config_tls {
    char *name;
    uint32_t index;
    uint32_t line;
    struct config_certificate *certificates; /* one at least */
    uint32_t certificate_count;
    uint8_t min_version; /* minor: 2 or 3 */
    bool session_tickets;
    bool strict_sni;
    enum config_client_auth client_auth;
    uint64_t ticket_rotation_ms;
    uint64_t watch_ms; /* 0: off */
    struct config_entry ciphers;
    struct config_entry ciphersuites;
    struct config_entry groups;
    struct config_entry ca; /* with client_auth */
    struct config_entry crl;
};

/* How the servers of an upstream are spoken to in TLS. */
struct config_upstream_tls {
    bool on;
    bool verify;
    uint32_t line;     /* of tls = */
    uint64_t watch_ms; /* 0: off */
    struct config_entry ca;
    struct config_entry crl;
    struct config_certificate certificate; /* of weir itself */
};

struct config_server {
    char *name;     /* the address text: label of metrics */
    uint32_t index; /* in its upstream */
    struct config_address address;
    char *tls_name;  /* SNI, and whose certificate it must have: a host name or an IP address; NULL:
                        not known */
    uint32_t weight; /* 1-1000; default 1 */
    uint32_t max_connections; /* with h2: requests; all workers together; 0: no limit */
    bool backup;
};

enum config_balance {
    CONFIG_BALANCE_ROUND_ROBIN,
    CONFIG_BALANCE_LEAST_CONN,
    CONFIG_BALANCE_P2C,
    CONFIG_BALANCE_RANDOM,
    CONFIG_BALANCE_SOURCE_IP,
    CONFIG_BALANCE_MAGLEV,
    CONFIG_BALANCE_FIRST
};

enum config_hash_key {
    CONFIG_HASH_CLIENT_IP,
    CONFIG_HASH_HEADER,
    CONFIG_HASH_COOKIE,
    CONFIG_HASH_PATH
};

/* HTTP version spoken to servers. */
enum config_protocol { CONFIG_PROTOCOL_H1, CONFIG_PROTOCOL_H2 };

struct config_upstream {
    char *name;
    uint32_t index;
    uint32_t line;
    struct config_server *servers;
    uint32_t server_count;
    enum config_protocol protocol;
    enum config_balance balance;
    enum config_hash_key hash_key;
    char *hash_name;    /* of HEADER and COOKIE */
    uint32_t keepalive; /* idle connections kept per server, all workers together; 0: none */
    uint64_t keepalive_timeout_ms;
    struct config_upstream_tls tls;
    uint8_t send_proxy;          /* version, 0: off; keepalive is 0 then */
    uint32_t queue;              /* requests that may wait, all workers together; 0: none */
    struct config_limits limits; /* timeout_connect, _queue, _server, _tunnel are used */
};

enum config_forwarded { CONFIG_FORWARDED_X, CONFIG_FORWARDED_RFC7239, CONFIG_FORWARDED_OFF };

/* What a route, or a listener without a matching route, does with a request. */
enum config_action_kind {
    CONFIG_ACTION_NONE, /* 404 */
    CONFIG_ACTION_UPSTREAM,
    CONFIG_ACTION_SERVICE,
    CONFIG_ACTION_REDIRECT,
    CONFIG_ACTION_RESPOND
};
struct config_split {
    const struct config_upstream *upstream;
    uint32_t weight;
};
struct config_action {
    enum config_action_kind kind;
    struct config_split *splits; /* UPSTREAM: one or more */
    uint32_t split_count;
    uint32_t weight_sum;
    const struct config_service *service;
    uint16_t status;      /* REDIRECT, RESPOND */
    struct template text; /* REDIRECT: the Location; RESPOND: the body, may be empty */
};

enum config_mode { CONFIG_MODE_HTTP, CONFIG_MODE_TCP };

struct config_listener {
    char *name;
    uint32_t index;
    uint32_t line;
    struct config_address *binds;
    uint32_t bind_count;
    bool is_admin; /* made from [admin] */
    enum config_mode mode;
    struct config_action action; /* when no route matches; TCP: UPSTREAM with one share, or SERVICE
                                  */
    uint32_t backlog;
    uint32_t max_connections;        /* all workers together; 0: no limit of its own */
    uint32_t max_connections_per_ip; /* all workers together; 0: no limit */
    uint32_t max_connection_rate;    /* new ones for each second; 0: no limit */
    bool nodelay;
    uint32_t ttl;
    uint32_t recv_buffer;
    uint32_t send_buffer;
    bool via;                        /* via = on */
    enum config_forwarded forwarded; /* forwarded = x_forwarded | rfc7239 | off */
    const struct config_tls *tls;    /* NULL: in clear */
    struct bytes alpn;               /* names with their lengths before them (RFC 7301 section 3.1),
                                        the preferred one first; in clear empty if not said */
    bool speaks_h2;                  /* by ALPN, or in clear; the admin does not */
    uint8_t proxy_protocol;          /* set of versions: 1 is v1, 2 is v2; 0: off */
    struct cidr_list trusted;        /* trusted_proxies; none: not said */
    struct config_limits limits;
    struct config_websocket websocket;
};

enum config_path_kind { CONFIG_PATH_PREFIX, CONFIG_PATH_EXACT, CONFIG_PATH_REGEX };
struct config_path {
    enum config_path_kind kind;
    struct bytes text;
    void *regex; /* pcre2_code, JIT-compiled where possible; shared, read-only */
};
/* header = NAME: VALUE matches a field with exactly that value; header = NAME matches presence. */
struct config_header_match {
    struct bytes name;
    struct bytes value; /* ptr NULL: presence */
};

/* Every list that is not empty must have one item that matches. */
struct config_route {
    char *name;
    uint32_t index;
    uint32_t line;
    const struct config_listener **listeners; /* none: all of mode http but the admin's */
    uint32_t listener_count;
    struct bytes *sni_names; /* as hosts; only for listeners with mode = tcp, and all they have */
    uint32_t sni_count;
    struct bytes *hosts; /* lower case; "*.x" matches one or more labels before x */
    uint32_t host_count;
    struct config_path *paths;
    uint32_t path_count;
    struct bytes *methods;
    uint32_t method_count;
    struct config_header_match *headers;
    uint32_t header_count;
    struct bytes *content_types; /* compared without parameters, no case; "image/" followed by a
                                    star matches any subtype */
    uint32_t content_type_count;
    struct config_action action;
    bool connect; /* CONNECT is passed on, and a tunnel follows a 2xx */
    struct config_websocket websocket;
    struct bytes strip_prefix;
    struct config_edits request_edits;
    struct config_edits response_edits;
};

struct config {
    char *file;
    /* [global] */
    uint32_t workers; /* resolved: >= 1 */
    int *cpus;        /* one per worker; NULL: cpu_affinity = off */
    uint32_t max_connections;
    uint32_t max_handshakes; /* of each worker */
    uint64_t drain_timeout_ms;
    enum log_level log_level;
    char *user; /* NULL: stay */
    struct config_limits defaults;
    struct config_listener *listeners; /* the admin's last */
    uint32_t listener_count;
    struct config_tls *tls;
    uint32_t tls_count;
    struct config_route *routes;
    uint32_t route_count;
    struct config_upstream *upstreams;
    uint32_t upstream_count;
    struct config_service *services;
    uint32_t service_count;
};

/* Collects "file:line: section.key: what" lines, one per error, in file order. */
struct config_errors {
    char *text; /* all lines, NUL-terminated; NULL when none */
    uint32_t count;
};

/* NULL when the file cannot be read. With errors (errors->count > 0) what is wrong is left out, or
 * has its default: such a one is only to be looked at for more of them. The caller ends both. */
struct config *config_load(const char *file, struct config_errors *errors);
void config_free(struct config *config);
void config_errors_fini(struct config_errors *errors);

#endif
