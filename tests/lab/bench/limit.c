/* limit: the least work that makes N WireGuard links and their BGP sessions, by raw netlink.
 *
 *   limit [-b BATCH] [-n NAMESPACE] [-d FOLDER] [-c CONFIGURATION] [-s SOCKET] <PLAN
 *
 * PLAN has a line for each link, its fields separated by blanks, "-" for a missing one:
 *   name private-key listen-port peer-public-key endpoint-ip endpoint-port keepalive address mtu asn neighbor
 * -b   messages in one system call (64; 1: wait for each answer)
 * -n   makes the links in this namespace; their UDP sockets stay in the caller's
 * -d   writes a BIRD protocol for each link there
 * -c   then checks this configuration with one `bird -p`
 * -s   then asks BIRD at this socket for one `configure`
 * Prints a line "phase seconds" for each phase, and the number of system calls.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/wireguard.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX 4096
struct plan { char name[16]; uint8_t priv[32], peer[32]; int port, eport, ka, mtu; char ep[46], ll[46], nb[46];
              uint32_t asn; int haspriv, haspeer; };
static struct plan P[MAX];
static int N, batch = 64, nsfd = -1;

static void die(const char *m) { perror(m); exit(1); }
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }

static int b64(const char *s, uint8_t *o)
{
    static const char *A = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t v = 0; int bits = 0, n = 0;
    for (; *s && *s != '='; s++) {
        const char *p = strchr(A, *s);
        if (!p) return -1;
        v = v << 6 | (p - A); bits += 6;
        if (bits >= 8) { bits -= 8; if (n < 32) o[n++] = v >> bits; }
    }
    return n == 32 ? 0 : -1;
}

/* ---- netlink, with a send buffer that goes out every `batch` messages ---- */
static char buf[1 << 20];
static size_t len;
static int pending, failed, calls;
static struct nlmsghdr *cur;

static int nl(int proto)
{
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, proto), big = 8 << 20, one = 1;
    struct sockaddr_nl a = { .nl_family = AF_NETLINK };
    if (s < 0 || bind(s, (void *)&a, sizeof a)) die("netlink");
    setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &big, sizeof big);
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &big, sizeof big);
    setsockopt(s, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    return s;
}
static void flush(int s)
{
    static char r[1 << 18];
    if (!len) return;
    if (send(s, buf, len, 0) != (ssize_t)len) die("send");
    calls++;
    while (pending > 0) {
        ssize_t n = recv(s, r, sizeof r, 0);
        if (n < 0) die("recv");
        calls++;
        for (struct nlmsghdr *h = (void *)r; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n))
            if (h->nlmsg_type == NLMSG_ERROR) {
                struct nlmsgerr *e = NLMSG_DATA(h);
                pending--;
                if (e->error) { if (!failed++) fprintf(stderr, "netlink: %s\n", strerror(-e->error)); }
            }
    }
    len = 0;
}
static void *begin(int type, int flags, size_t body)
{
    cur = (void *)(buf + len);
    memset(cur, 0, NLMSG_LENGTH(body));
    cur->nlmsg_type = type; cur->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    cur->nlmsg_len = NLMSG_LENGTH(body);
    return NLMSG_DATA(cur);
}
static struct rtattr *put(int type, const void *d, size_t n)
{
    struct rtattr *a = (void *)((char *)cur + NLMSG_ALIGN(cur->nlmsg_len));
    a->rta_type = type; a->rta_len = RTA_LENGTH(n);
    if (n) memcpy(RTA_DATA(a), d, n);
    cur->nlmsg_len = NLMSG_ALIGN(cur->nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}
static void endnest(struct rtattr *a) { a->rta_len = (char *)cur + NLMSG_ALIGN(cur->nlmsg_len) - (char *)a; }
static void commit(int s) { len += NLMSG_ALIGN(cur->nlmsg_len); if (++pending >= batch || len > sizeof buf - 8192) flush(s); }

static int genl_family(int s, const char *name)
{
    char r[8192];
    struct genlmsghdr *g = begin(GENL_ID_CTRL, 0, sizeof *g);
    cur->nlmsg_flags = NLM_F_REQUEST;
    g->cmd = CTRL_CMD_GETFAMILY; g->version = 1;
    put(CTRL_ATTR_FAMILY_NAME, name, strlen(name) + 1);
    if (send(s, cur, cur->nlmsg_len, 0) < 0) die("genl");
    ssize_t n = recv(s, r, sizeof r, 0);
    struct nlmsghdr *h = (void *)r;
    if (n < 0 || h->nlmsg_type == NLMSG_ERROR) { fprintf(stderr, "no wireguard family\n"); exit(1); }
    int l = h->nlmsg_len - NLMSG_LENGTH(sizeof *g);
    for (struct rtattr *a = (void *)((char *)NLMSG_DATA(h) + GENL_HDRLEN); RTA_OK(a, l); a = RTA_NEXT(a, l))
        if (a->rta_type == CTRL_ATTR_FAMILY_ID) return *(uint16_t *)RTA_DATA(a);
    exit(1);
}
static void phase(const char *what, double *t) { double n = now(); printf("%s %.4f\n", what, n - *t); *t = n; }

static int bird_reply(FILE *f)
{
    char l[4096];
    while (fgets(l, sizeof l, f))
        if (l[0] >= '0' && l[0] <= '9' && strlen(l) > 4 && l[4] == ' ') { return atoi(l); }
    return -1;
}

int main(int argc, char **argv)
{
    const char *ns = 0, *dir = 0, *conf = 0, *sock = 0; int o;
    while ((o = getopt(argc, argv, "b:n:d:c:s:")) != -1)
        switch (o) {
        case 'b': batch = atoi(optarg); break;
        case 'n': ns = optarg; break;
        case 'c': conf = optarg; break;
        case 'd': dir = optarg; break;
        case 's': sock = optarg; break;
        default: return 2;
        }
    double t = now();
    int rt = nl(NETLINK_ROUTE), rt2 = rt, ge;
    char line[1024];
    while (fgets(line, sizeof line, stdin) && N < MAX) {
        struct plan *p = &P[N]; char k1[64], k2[64];
        if (sscanf(line, "%15s %63s %d %63s %45s %d %d %45s %d %u %45s", p->name, k1, &p->port, k2, p->ep, &p->eport,
                   &p->ka, p->ll, &p->mtu, &p->asn, p->nb) != 11) { fprintf(stderr, "bad line: %s", line); return 1; }
        p->haspriv = !b64(k1, p->priv); p->haspeer = !b64(k2, p->peer);
        N++;
    }
    if (ns) {
        char path[256];
        snprintf(path, sizeof path, "/run/netns/%s", ns);
        nsfd = open(path, O_RDONLY | O_CLOEXEC);
        int self = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (nsfd < 0 || setns(nsfd, CLONE_NEWNET)) die(path);
        rt2 = nl(NETLINK_ROUTE); ge = nl(NETLINK_GENERIC);
        if (setns(self, CLONE_NEWNET)) die("setns");
    } else ge = nl(NETLINK_GENERIC);
    phase("parse", &t);

    /* Chosen numbers of the interfaces: later messages need not wait for the answers. */
    int base = ns ? 200000 : 100000;
    for (int i = 0; i < N; i++) {
        struct plan *p = &P[i];
        struct ifinfomsg *h = begin(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof *h);
        h->ifi_index = base + i;
        put(IFLA_IFNAME, p->name, strlen(p->name) + 1);
        put(IFLA_MTU, &p->mtu, 4);
        if (nsfd >= 0) put(IFLA_NET_NS_FD, &nsfd, 4);
        struct rtattr *li = put(IFLA_LINKINFO, 0, 0);
        put(IFLA_INFO_KIND, "wireguard", 9);
        endnest(li);
        commit(rt);
    }
    flush(rt);
    phase("links", &t);
    int fam = genl_family(ge, WG_GENL_NAME);
    for (int i = 0; i < N; i++) {
        struct plan *p = &P[i];
        uint32_t ix = base + i, zero = WGPEER_F_REPLACE_ALLOWEDIPS;
        uint16_t port = p->port, ka = p->ka;
        struct genlmsghdr *g = begin(fam, 0, sizeof *g);
        g->cmd = WG_CMD_SET_DEVICE; g->version = WG_GENL_VERSION;
        put(WGDEVICE_A_IFINDEX, &ix, 4);
        if (p->haspriv) put(WGDEVICE_A_PRIVATE_KEY, p->priv, 32);
        put(WGDEVICE_A_LISTEN_PORT, &port, 2);
        if (p->haspeer) {
            struct rtattr *ps = put(WGDEVICE_A_PEERS | NLA_F_NESTED, 0, 0), *pe = put(NLA_F_NESTED, 0, 0);
            put(WGPEER_A_PUBLIC_KEY, p->peer, 32);
            put(WGPEER_A_FLAGS, &zero, 4);
            if (p->ep[0] != '-') {
                struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(p->eport) };
                inet_pton(AF_INET, p->ep, &a.sin_addr);
                put(WGPEER_A_ENDPOINT, &a, sizeof a);
            }
            if (ka) put(WGPEER_A_PERSISTENT_KEEPALIVE_INTERVAL, &ka, 2);
            struct rtattr *as = put(WGPEER_A_ALLOWEDIPS | NLA_F_NESTED, 0, 0);
            static const struct { int f, m; const char *a; } al[] = {
                { AF_INET, 0, "0.0.0.0" }, { AF_INET6, 8, "fd00::" }, { AF_INET6, 64, "fe80::" } };
            for (int k = 0; k < 3; k++) {
                uint8_t a[16]; uint16_t f = al[k].f; uint8_t m = al[k].m;
                inet_pton(f, al[k].a, a);
                struct rtattr *e = put(NLA_F_NESTED, 0, 0);
                put(WGALLOWEDIP_A_FAMILY, &f, 2);
                put(WGALLOWEDIP_A_IPADDR, a, f == AF_INET ? 4 : 16);
                put(WGALLOWEDIP_A_CIDR_MASK, &m, 1);
                endnest(e);
            }
            endnest(as); endnest(pe); endnest(ps);
        }
        commit(ge);
    }
    flush(ge);
    phase("wireguard", &t);
    for (int i = 0; i < N; i++) {
        struct plan *p = &P[i]; uint8_t a[16];
        /* Up after the port: the socket of a running interface moves only after two grace periods of RCU. */
        struct ifinfomsg *u = begin(RTM_NEWLINK, 0, sizeof *u);
        u->ifi_index = base + i; u->ifi_flags = u->ifi_change = IFF_UP;
        commit(rt2);
        struct ifaddrmsg *h = begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *h);
        h->ifa_family = AF_INET6; h->ifa_prefixlen = 64; h->ifa_index = base + i; h->ifa_scope = RT_SCOPE_LINK;
        inet_pton(AF_INET6, p->ll, a);
        put(IFA_LOCAL, a, 16); put(IFA_ADDRESS, a, 16);
        commit(rt2);
    }
    flush(rt2);
    phase("up_addresses", &t);
    if (dir) {
        for (int i = 0; i < N; i++) {
            char path[512]; struct plan *p = &P[i];
            snprintf(path, sizeof path, "%s/dn42_%u.conf", dir, p->asn);
            FILE *f = fopen(path, "w");
            if (!f) die(path);
            fprintf(f, "protocol bgp dn42_%u from dn42_peer {\n    neighbor %s %% '%s' as %u;\n"
                    "    description \"peer\";\n    ipv4 {\n        import filter dn42_import_filter;\n"
                    "        export filter dn42_export_filter;\n        extended next hop on;\n    };\n"
                    "    ipv6 {\n        import filter dn42_import_filter;\n        export filter dn42_export_filter;\n"
                    "    };\n}\n", p->asn, p->nb, p->name, p->asn);
            fclose(f);
        }
        phase("files", &t);
    }
    if (conf) {
        pid_t pid = fork();
        int status;
        if (!pid) { execlp("bird", "bird", "-p", "-c", conf, (char *)0); _exit(127); }
        if (pid < 0 || waitpid(pid, &status, 0) < 0) die("bird -p");
        if (status) { fprintf(stderr, "bird -p refused\n"); failed++; }
        phase("check", &t);
    }
    if (sock) {
        struct sockaddr_un u = { .sun_family = AF_UNIX };
        strncpy(u.sun_path, sock, sizeof u.sun_path - 1);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(s, (void *)&u, sizeof u)) die(sock);
        FILE *f = fdopen(s, "r+");
        bird_reply(f);
        if (write(s, "configure\n", 10) != 10) die("bird");
        int c = bird_reply(f);
        phase("bird", &t);
        if (c != 3 && c != 4) { fprintf(stderr, "bird answered %d\n", c); failed++; }
    }
    printf("calls %d\n", calls);
    return failed != 0;
}
