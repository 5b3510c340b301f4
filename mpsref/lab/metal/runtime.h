// Runs one kernel of a translated .metal file: program JOB RESULT. What the files hold, mpsref/lab/cpu.py says.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

struct launch_ {
  void *buffers[32];
  metal::image *textures[32];
  void *shared[8];
  uint32_t kernel_number, grid[3], group[3], groups[3];
};
struct thread_ {
  metal::bound_place_ place, grid, group_place, groups, local, group, whole_group, local_index, lane, simdgroup, simd_width, simdgroups;
};
typedef void (*entry_)(const launch_ &, const thread_ &);

namespace lab {

struct fiber { ucontext_t context; thread_ t; bool done; };
static ucontext_t back;
static fiber *now;
static entry_ body;
static const launch_ *launch;
static void begin() { body(*launch, now->t); now->done = true; swapcontext(&now->context, &back); }
static void pause() { swapcontext(&now->context, &back); }

// Threads run one after another; where there are barriers, each of a group has a stack of its own.
static void run(const launch_ &l, entry_ entry, bool barriers) {
  const uint32_t most = l.group[0] * l.group[1] * l.group[2];
  const size_t stack = 256 << 10;
  fiber *fibers = barriers ? static_cast<fiber *>(calloc(most, sizeof(fiber))) : nullptr;
  char *stacks = barriers ? static_cast<char *>(malloc(size_t(most) * stack)) : nullptr;
  metal::at_barrier_ = barriers ? pause : nullptr;
  body = entry, launch = &l;
  for (uint32_t gz = 0; gz < l.groups[2]; ++gz)
  for (uint32_t gy = 0; gy < l.groups[1]; ++gy)
  for (uint32_t gx = 0; gx < l.groups[0]; ++gx) {
    uint32_t index = 0, alive = 0, size[3];
    const uint32_t at[3] = {gx, gy, gz};
    for (int k = 0; k < 3; ++k) {  // a group at the edge is smaller, as with dispatchThreads
      const uint32_t rest = l.grid[k] - at[k] * l.group[k];
      size[k] = rest < l.group[k] ? rest : l.group[k];
    }
    for (uint32_t z = 0; z < size[2]; ++z)
    for (uint32_t y = 0; y < size[1]; ++y)
    for (uint32_t x = 0; x < size[0]; ++x, ++index) {
      const thread_ t = {
        {{gx * l.group[0] + x, gy * l.group[1] + y, gz * l.group[2] + z}}, {{l.grid[0], l.grid[1], l.grid[2]}}, {{gx, gy, gz}},
        {{l.groups[0], l.groups[1], l.groups[2]}}, {{x, y, z}}, {{size[0], size[1], size[2]}}, {{l.group[0], l.group[1], l.group[2]}},
        {{index, 0, 0}}, {{index % 32, 0, 0}}, {{index / 32, 0, 0}}, {{32, 1, 1}}, {{(most + 31) / 32, 1, 1}}};
      if (!barriers) { entry(l, t); continue; }
      fiber &f = fibers[alive];
      f.t = t, f.done = false;
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = stacks + stack * alive++, f.context.uc_stack.ss_size = stack, f.context.uc_link = nullptr;
      makecontext(&f.context, begin, 0);
    }
    // All run up to the next barrier, then all go on: a thread that has returned is not waited for.
    for (bool left = barriers; left;) {
      left = false;
      for (uint32_t i = 0; i < alive; ++i) {
        if (fibers[i].done) continue;
        now = &fibers[i];
        swapcontext(&back, &fibers[i].context);
        left |= !fibers[i].done;
      }
    }
  }
  free(fibers), free(stacks);
}

static void stop(const char *message) {
  if (write(2, message, strlen(message)) < 0) _exit(4);
  _exit(3);
}

// Buffers end at a page that nobody may touch, so that an access behind one is seen.
struct block { char *first, *guard; size_t size; bool returned; char place[24]; };
static block blocks[48];
static int count;
static const size_t page = 65536;  // no system has larger ones

static void *allocated(size_t size, const char *kind, uint32_t index, bool returned = true) {
  const size_t whole = (size + page - 1) / page * page;
  char *start = static_cast<char *>(mmap(nullptr, whole + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (start == MAP_FAILED || mprotect(start + page, whole, PROT_READ | PROT_WRITE)) stop("not enough memory for what it reads and writes");
  block &b = blocks[count++];
  b.guard = start + page + whole, b.size = size, b.returned = returned, b.first = b.guard - (size + 15) / 16 * 16;
  snprintf(b.place, sizeof b.place, "%s(%u)", kind, index);
  return b.first;
}

static void crashed(int number, siginfo_t *info, void *) {
  static char message[160];
  const char *at = static_cast<char *>(info->si_addr);
  for (int i = 0; number != SIGFPE && i < count; ++i)
    if (at >= blocks[i].first - 2 * page && at < blocks[i].guard + page) {
      snprintf(message, sizeof message, "it reads or writes %s %s, which has %zu bytes", at < blocks[i].first ? "before" : "behind", blocks[i].place, blocks[i].size);
      stop(message);
    }
  stop(number == SIGFPE ? "it divides an integer by zero" : "it reads or writes memory that nothing is bound to");
}

static FILE *job;
template <class T> T word() { T v; if (fread(&v, sizeof v, 1, job) != 1) stop("the job is cut short"); return v; }
static void bytes(void *to, size_t size) { if (size && fread(to, size, 1, job) != 1) stop("the job is cut short"); }

static int main(int, char **names, void (*launched)(const launch_ &)) {
  static char other[65536];
  stack_t own = {}; own.ss_sp = other, own.ss_size = sizeof other;
  sigaltstack(&own, nullptr);
  struct sigaction action = {};
  action.sa_sigaction = crashed, action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE};
  for (int number : numbers) sigaction(number, &action, nullptr);
  job = fopen(names[1], "rb");
  if (!job) stop("no job");
  // Seconds of the processor, and bytes.
  const rlimit seconds = {word<uint32_t>(), RLIM_INFINITY}, memory = {rlim_t(word<uint32_t>()) << 20, RLIM_INFINITY}, none = {0, 0};
  setrlimit(RLIMIT_CPU, &seconds), setrlimit(RLIMIT_AS, &memory), setrlimit(RLIMIT_CORE, &none);
  static launch_ l;
  static metal::image images[32];
  l.kernel_number = word<uint32_t>();
  for (int k = 0; k < 3; ++k) l.grid[k] = word<uint32_t>();
  for (int k = 0; k < 3; ++k) l.group[k] = word<uint32_t>();
  for (int k = 0; k < 3; ++k) l.groups[k] = (l.grid[k] + l.group[k] - 1) / l.group[k];
  for (uint32_t n = word<uint32_t>(), i = 0; i < n; ++i) {
    const uint32_t index = word<uint32_t>();
    const size_t size = word<uint32_t>();
    bytes(l.buffers[index] = allocated(size, "buffer", index), size);
  }
  for (uint32_t n = word<uint32_t>(), i = 0; i < n; ++i) {
    const uint32_t index = word<uint32_t>();
    metal::image &m = images[index];
    m.width = word<uint32_t>(), m.height = word<uint32_t>(), m.slices = word<uint32_t>(), m.components = word<uint32_t>(), m.format = word<uint32_t>();
    const size_t size = word<uint32_t>();
    bytes(m.data = allocated(size, "texture", index), size);
    l.textures[index] = &m;
  }
  for (uint32_t n = word<uint32_t>(), i = 0; i < n; ++i) {
    const uint32_t index = word<uint32_t>(), size = word<uint32_t>();
    memset(l.shared[index] = allocated(size, "threadgroup", index, false), 0xff, size);
  }
  fclose(job);
  launched(l);
  if (metal::refused_) { static char message[160]; snprintf(message, sizeof message, "it calls %s, which is not run here", metal::refused_); stop(message); }
  FILE *result = fopen(names[2], "wb");
  for (int i = 0; result && i < count; ++i)
    if (blocks[i].returned && blocks[i].size && fwrite(blocks[i].first, blocks[i].size, 1, result) != 1) stop("the result cannot be written");
  for (const metal::image &m : images) { const uint64_t outside = uint64_t(m.outside); if (result) fwrite(&outside, sizeof outside, 1, result); }
  if (!result || fclose(result)) stop("the result cannot be written");
  return 0;
}

}  // namespace lab
