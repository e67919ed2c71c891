/* cfs: the least that serves an archive's tree and bytes through libfuse's low-level interface.
 *
 *     cfs [-t THREADS] FLAT MOUNTPOINT       stays in the foreground until it is unmounted or told to end
 *
 * It is the bar for dicomfs: no catalog, no recipe, no checksum, no code of frames. FLAT (flat.py writes it)
 * is mapped and used as it lies, so starting costs nothing; replies to reads point into mapped packs.
 * The kernel may keep names, attributes and pages as long as dicomfs lets it. One thread unless -t says more:
 * dicomfs has one, too.
 *
 * FLAT, all little endian, one table after another:
 *
 *     head                        "CFSFLAT1", then how many of each of the following
 *     node    [nodes]             number 0 is the root; the kernel knows node n as n + 1
 *     entry   [entries]           those of one directory are neighbours, in the order of a listing
 *     by_name [entries] u32       within each directory: its entries (counted from its first) in the order of bytes
 *     extent  [extents]           those of one file are neighbours, in the order of the file
 *     names   bytes               one after another, no terminator; the table of entries says where
 *     sources bytes               paths, each ended by NUL
 */
#define FUSE_USE_VERSION 34
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define TIMEOUT_S 86400.0
#define MAX_PARTS 512

struct head { char magic[8]; uint64_t nodes, entries, extents, names, sources; };
struct node { uint64_t ino, size; int64_t mtime_ns; uint64_t first, count; uint32_t directory, links; };
struct entry { uint64_t name; uint32_t length, node; };
struct extent { uint64_t start, length, offset, source; };

static const struct head *head;
static const struct node *nodes;
static const struct entry *entries;
static const uint32_t *by_name;
static const struct extent *extents;
static const char *names;
static char **sources;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static char *map(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st))
        fail(path);
    char *at = mmap(NULL, st.st_size ? st.st_size : 1, PROT_READ, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        fail(path);
    close(fd);
    return at;
}

static void load(const char *path)
{
    const char *at = map(path);
    head = (const void *)at;
    if (memcmp(head->magic, "CFSFLAT1", 8)) {
        fprintf(stderr, "%s: is no description of a tree\n", path);
        exit(1);
    }
    nodes = (const void *)(at += sizeof *head);
    entries = (const void *)(at += head->nodes * sizeof *nodes);
    by_name = (const void *)(at += head->entries * sizeof *entries);
    extents = (const void *)(at += (head->entries + head->entries % 2) * sizeof *by_name);
    names = at += head->extents * sizeof *extents;
    at += head->names;
    sources = calloc(head->sources + 1, sizeof *sources);
    for (uint64_t n = 0; n < head->sources; n++, at += strlen(at) + 1)
        sources[n] = map(at);
}

static const struct node *node_of(fuse_ino_t ino)
{
    return ino >= 1 && ino <= head->nodes ? &nodes[ino - 1] : NULL;
}

static void attributes(const struct node *node, struct stat *st)
{
    memset(st, 0, sizeof *st);
    st->st_ino = node->ino;
    st->st_mode = node->directory ? S_IFDIR | 0755 : S_IFREG | 0644;
    st->st_nlink = node->links;
    st->st_uid = getuid();
    st->st_gid = getgid();
    st->st_size = node->size;
    st->st_blocks = (node->size + 511) / 512;
    st->st_blksize = 4096;
    st->st_mtim.tv_sec = node->mtime_ns / 1000000000;
    st->st_mtim.tv_nsec = node->mtime_ns % 1000000000;
    st->st_atim = st->st_ctim = st->st_mtim;
}

static struct fuse_entry_param param(uint32_t number)
{
    struct fuse_entry_param e = {.ino = number + 1, .attr_timeout = TIMEOUT_S, .entry_timeout = TIMEOUT_S};
    attributes(&nodes[number], &e.attr);
    return e;
}

static void cfs_init(void *data, struct fuse_conn_info *conn)
{
    (void)data;
    conn->want &= ~FUSE_CAP_SPLICE_READ; /* as dicomfs: one system call less for each request */
    if (conn->capable & FUSE_CAP_READDIRPLUS) {
        conn->want |= FUSE_CAP_READDIRPLUS;
        conn->want &= ~FUSE_CAP_READDIRPLUS_AUTO;
    }
}

static void cfs_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)file;
    const struct node *node = node_of(ino);
    if (!node) {
        fuse_reply_err(req, ESTALE);
        return;
    }
    struct stat st;
    attributes(node, &st);
    fuse_reply_attr(req, &st, TIMEOUT_S);
}

static int compare(const char *name, size_t length, const struct entry *entry)
{
    size_t common = length < entry->length ? length : entry->length;
    int order = memcmp(name, names + entry->name, common);
    return order ? order : (length > entry->length) - (length < entry->length);
}

static void cfs_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    const struct node *node = node_of(parent);
    struct fuse_entry_param e = {.entry_timeout = 0.5};
    if (node && node->directory) {
        uint64_t low = 0, high = node->count;
        size_t length = strlen(name);
        while (low < high) {
            uint64_t middle = (low + high) / 2;
            const struct entry *entry = &entries[node->first + by_name[node->first + middle]];
            int order = compare(name, length, entry);
            if (!order) {
                e = param(entry->node);
                break;
            }
            if (order < 0)
                high = middle;
            else
                low = middle + 1;
        }
    }
    fuse_reply_entry(req, &e);
}

static void cfs_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino;
    fuse_reply_open(req, file);
}

static void cfs_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *file)
{
    (void)file;
    const struct node *node = node_of(ino);
    char *buffer = malloc(size), name[256];
    size_t used = 0;
    for (uint64_t number = offset; node && buffer && number < node->count + 2; number++) {
        struct fuse_entry_param e = param(ino - 1);
        if (number < 2) { /* `.` and `..`, of which the kernel takes no reference */
            strcpy(name, number ? ".." : ".");
        } else {
            const struct entry *entry = &entries[node->first + number - 2];
            memcpy(name, names + entry->name, entry->length);
            name[entry->length] = 0;
            e = param(entry->node);
        }
        size_t needed = fuse_add_direntry_plus(req, buffer + used, size - used, name, &e, number + 1);
        if (needed > size - used)
            break;
        used += needed;
    }
    fuse_reply_buf(req, buffer, used);
    free(buffer);
}

static void cfs_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino;
    if ((file->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(req, EROFS);
        return;
    }
    file->keep_cache = 1;
    fuse_reply_open(req, file);
}

static void cfs_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t at, struct fuse_file_info *file)
{
    (void)file;
    const struct node *node = node_of(ino);
    uint64_t offset = at, end = offset + size;
    if (!node || node->directory || offset >= node->size) {
        fuse_reply_buf(req, NULL, 0);
        return;
    }
    if (end > node->size)
        end = node->size;
    uint64_t low = node->first, high = node->first + node->count; /* the last extent that starts at or before */
    while (high - low > 1) {
        uint64_t middle = (low + high) / 2;
        if (extents[middle].start <= offset)
            low = middle;
        else
            high = middle;
    }
    struct iovec parts[MAX_PARTS];
    int count = 0;
    while (offset < end && count < MAX_PARTS) {
        const struct extent *extent = &extents[low++];
        uint64_t skip = offset - extent->start, length = extent->length - skip;
        if (length > end - offset)
            length = end - offset;
        parts[count].iov_base = sources[extent->source] + extent->offset + skip;
        parts[count++].iov_len = length;
        offset += length;
    }
    if (offset < end)
        fuse_reply_err(req, EIO);
    else
        fuse_reply_iov(req, parts, count);
}

static void cfs_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino, (void)file;
    fuse_reply_err(req, ENOSYS); /* the kernel asks once and never again */
}

static void cfs_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *file)
{
    (void)ino, (void)file;
    fuse_reply_err(req, 0);
}

static const struct fuse_lowlevel_ops operations = {
    .init = cfs_init,       .lookup = cfs_lookup,           .getattr = cfs_getattr,
    .opendir = cfs_opendir, .readdirplus = cfs_readdirplus, .releasedir = cfs_release,
    .open = cfs_open,       .read = cfs_read,               .flush = cfs_flush,
    .release = cfs_release,
};

int main(int count, char **words)
{
    int threads = 0, option;
    while ((option = getopt(count, words, "t:")) != -1) {
        if (option != 't')
            return 2;
        threads = atoi(optarg);
    }
    if (count - optind != 2) {
        fprintf(stderr, "usage: cfs [-t THREADS] FLAT MOUNTPOINT\n");
        return 2;
    }
    load(words[optind]);
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    fuse_opt_add_arg(&args, "cfs");
    fuse_opt_add_arg(&args, "-oro,nosuid,nodev,default_permissions,fsname=cfs,subtype=cfs");
    struct fuse_session *session = fuse_session_new(&args, &operations, sizeof operations, NULL);
    if (!session || fuse_set_signal_handlers(session) || fuse_session_mount(session, words[optind + 1]))
        return 1;
    if (threads) {
        struct fuse_loop_config *loop = fuse_loop_cfg_create();
        fuse_loop_cfg_set_clone_fd(loop, 1);
        fuse_loop_cfg_set_max_threads(loop, threads);
        fuse_session_loop_mt(session, loop);
        fuse_loop_cfg_destroy(loop);
    } else {
        fuse_session_loop(session);
    }
    fuse_session_unmount(session);
    fuse_session_destroy(session);
    return 0;
}
