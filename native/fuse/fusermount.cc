#include "native/fuse/fusermount.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

extern char** environ;

namespace penstock::fuse {

namespace {

constexpr const char* kHelper = "fusermount3";
constexpr std::size_t kComplaintMax = 1024;  // bytes of standard error that we keep

struct Outcome {
  bool success = false;
  std::string complaint;  // one line, empty when it said nothing
};

// Reads to the end, keeps the beginning, and makes one line of it.
std::string read_complaint(int fd) {
  std::string text;
  std::array<char, 256> piece{};
  for (;;) {
    const ssize_t got = ::read(fd, piece.data(), piece.size());
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.append(piece.data(), std::min(static_cast<std::size_t>(got), kComplaintMax - text.size()));
  }
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& text : strings) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// `socket` < 0: none is passed on.
Result<Outcome> run_helper(std::vector<std::string> arguments, int socket) {
  std::array<int, 2> pipe{-1, -1};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0)
    return Error::from_errno(errno, "cannot make a pipe for fusermount3");
  const Fd said(pipe[0]);
  Fd says(pipe[1]);
  std::vector<std::string> variables;
  for (char** variable = environ; *variable != nullptr; ++variable) variables.emplace_back(*variable);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, says.get(), STDERR_FILENO);
  if (socket >= 0) {
    posix_spawn_file_actions_adddup2(&actions, socket,
                                     socket);  // onto itself: clears close-on-exec in the child only
    variables.push_back("_FUSE_COMMFD=" + std::to_string(socket));
  }
  pid_t pid = -1;
  const int failed = ::posix_spawnp(&pid, kHelper, &actions, nullptr, pointers(arguments).data(),
                                    pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  if (failed == ENOENT)
    return Error{ENOENT, "fusermount3 is not installed; run as root, or: apt-get install fuse3"};
  if (failed != 0) return Error::from_errno(failed, "cannot run fusermount3");
  says.reset();
  Outcome outcome;
  outcome.complaint = read_complaint(said.get());
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return Error::from_errno(errno, "cannot wait for fusermount3");
  }
  outcome.success = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  return outcome;
}

std::optional<Fd> receive_descriptor(int socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  const cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS) return std::nullopt;
  int fd = -1;
  std::copy_n(CMSG_DATA(header), sizeof(fd), reinterpret_cast<unsigned char*>(&fd));
  return Fd(fd);
}

Error helper_error(int code, const std::string& what, const Outcome& outcome) {
  return Error{code, what + ": " + (outcome.complaint.empty() ? "fusermount3 failed" : outcome.complaint)};
}

}  // namespace

Result<Fd> fusermount(const std::string& mountpoint, const std::string& options) {
  std::array<int, 2> pair{-1, -1};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    return Error::from_errno(errno, "cannot make a socket pair for fusermount3");
  const Fd ours(pair[0]);
  Fd theirs(pair[1]);
  Result<Outcome> outcome = run_helper({kHelper, "-o", options, "--", mountpoint}, theirs.get());
  theirs.reset();
  if (!outcome) return outcome.error();
  std::optional<Fd> device = receive_descriptor(ours.get());
  if (!outcome->success || !device) return helper_error(EPERM, "cannot mount on " + mountpoint, *outcome);
  return std::move(*device);
}

Result<void> fusermount_detach(const std::string& mountpoint, bool lazy) {
  std::vector<std::string> arguments{kHelper, "-u"};
  if (lazy) arguments.emplace_back("-z");
  arguments.insert(arguments.end(), {"--", mountpoint});
  Result<Outcome> outcome = run_helper(std::move(arguments), -1);
  if (!outcome) return outcome.error();
  if (!outcome->success) return helper_error(EBUSY, "cannot unmount " + mountpoint, *outcome);
  return {};
}

}  // namespace penstock::fuse
