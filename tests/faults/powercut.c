/* A disk that forgets what was not synced: keeps, beside the real files, what a power cut would leave.
 *
 * Preloaded into a process, it follows fsync and fdatasync under $POWERCUT_ROOT:
 *   - of a file: its content is copied to $POWERCUT_SHADOW/inodes/<inode> and stands under the file's
 *     name in $POWERCUT_SHADOW/names;
 *   - of a folder: names that are gone are dropped from the shadow, names that appeared (by a rename) are
 *     given the content last synced for their inode, or none.
 * A copy is put in place by rename, so the shadow is whole whenever the process is killed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

typedef int (*sync_call)(int);

/* The path of `fd` below the root, or NULL; `buffer` holds it. */
static const char *below_root(int fd, char *buffer) {
    const char *root = getenv("POWERCUT_ROOT");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (!root || length < 0) return NULL;
    buffer[length] = 0;
    size_t skip = strlen(root);
    if (strncmp(buffer, root, skip) || (buffer[skip] && buffer[skip] != '/')) return NULL;
    return buffer + skip;
}

static void stored(char *out, const char *kind, const char *name) {
    snprintf(out, PATH_MAX, "%s/%s%s", getenv("POWERCUT_SHADOW"), kind, name);
}

static void object(char *out, ino_t inode, const char *ending) {
    char name[64];
    snprintf(name, sizeof name, "/%llu%s", (unsigned long long)inode, ending);
    stored(out, "inodes", name);
}

static void make_folders(const char *name) {
    char path[PATH_MAX];
    stored(path, "names", name);
    for (char *at = path + 1; (at = strchr(at, '/')); at++) {
        *at = 0;
        mkdir(path, 0700);
        *at = '/';
    }
}

/* Let `name` stand for the content in `from`. */
static void put(const char *from, const char *name) {
    char path[PATH_MAX], temporary[PATH_MAX];
    make_folders(name);
    stored(path, "names", name);
    snprintf(temporary, sizeof temporary, "%s/linking", getenv("POWERCUT_SHADOW"));
    unlink(temporary);
    if (link(from, temporary) || rename(temporary, path)) abort();
    unlink(temporary); /* rename does nothing where both are links to one file */
}

static void file_synced(int fd, const char *name, const struct stat *status) {
    static char block[1 << 20];
    char whole[PATH_MAX], part[PATH_MAX], source[64];
    object(whole, status->st_ino, "");
    object(part, status->st_ino, ".part");
    snprintf(source, sizeof source, "/proc/self/fd/%d", fd);
    int from = open(source, O_RDONLY | O_CLOEXEC);
    int to = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (from < 0 || to < 0) abort();
    for (ssize_t got; (got = read(from, block, sizeof block)) > 0;)
        if (write(to, block, got) != got) abort();
    close(from);
    close(to);
    if (rename(part, whole)) abort();
    put(whole, name);
}

static void folder_synced(const char *name, const char *real) {
    char path[PATH_MAX], other[PATH_MAX];
    struct stat status;
    struct dirent *entry;
    stored(path, "names", name);
    DIR *kept = opendir(path);
    while (kept && (entry = readdir(kept))) {
        snprintf(other, sizeof other, "%s/%s", real, entry->d_name);
        if (lstat(other, &status) && errno == ENOENT) unlinkat(dirfd(kept), entry->d_name, 0);
    }
    if (kept) closedir(kept);
    DIR *now = opendir(real);
    while (now && (entry = readdir(now))) {
        if (fstatat(dirfd(now), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) || !S_ISREG(status.st_mode)) continue;
        object(path, status.st_ino, "");
        if (access(path, F_OK)) { /* it has a name, but nothing of its content is sure */
            int empty = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            if (empty < 0) abort();
            close(empty);
        }
        snprintf(other, sizeof other, "%s/%s", name, entry->d_name);
        put(path, other);
    }
    if (now) closedir(now);
}

static int follow(const char *call, int fd) {
    char buffer[PATH_MAX];
    struct stat status;
    sync_call real = (sync_call)dlsym(RTLD_NEXT, call);
    int result = real(fd);
    const char *name = below_root(fd, buffer);
    if (result || !name || fstat(fd, &status)) return result;
    /* One at a time, over all threads and processes that share the shadow. */
    char lock[PATH_MAX];
    stored(lock, "", "lock");
    int held = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (held < 0 || flock(held, LOCK_EX)) abort();
    if (S_ISDIR(status.st_mode)) folder_synced(name, buffer);
    else if (S_ISREG(status.st_mode) && status.st_nlink) file_synced(fd, name, &status);
    close(held);
    return 0;
}

int fsync(int fd) { return follow("fsync", fd); }
int fdatasync(int fd) { return follow("fdatasync", fd); }
