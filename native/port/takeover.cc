#include "native/port/takeover.h"

#include <dirent.h>
#include <fcntl.h>
#include <net/if.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <sstream>

#include "native/base/boot_id.h"

namespace penstock::net {
namespace {

constexpr const char* kFirstLine = "penstock takeover 1";
constexpr std::size_t kJournalBytesMax = 4096;

// A word of the journal: never empty.
std::string this_boot() {
  const std::string id = boot_id();
  return id.empty() ? "unknown" : id;
}

std::string ipv6_switch(const std::string& link) {
  return "ipv6/conf/" + link + "/disable_ipv6";
}

std::string read_all(int fd) {
  std::string text(kJournalBytesMax, '\0');
  const ssize_t got = ::pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

// True when the lock was had and the name still stands for this file.
bool lock_if_free(int fd) {
  struct stat status {};
  return ::flock(fd, LOCK_EX | LOCK_NB) == 0 && ::fstat(fd, &status) == 0 && status.st_nlink > 0;
}

}  // namespace

std::string Takeover::write_journal(const Journal& journal) {
  std::ostringstream text;
  text << kFirstLine << "\nboot " << journal.boot << "\nnamespace " << journal.space_inode << ' '
       << journal.space_path << "\nlink " << journal.index << ' ' << journal.link << '\n';
  if (!journal.disable_ipv6.empty())
    text << "sysctl " << ipv6_switch(journal.link) << ' ' << journal.disable_ipv6 << '\n';
  if (journal.was_down) text << "down\n";
  text << "end\n";
  return text.str();
}

bool Takeover::parse_journal(const std::string& text, Journal& journal) {
  std::istringstream lines(text);
  std::string line;
  if (!std::getline(lines, line) || line != kFirstLine) return false;
  while (std::getline(lines, line)) {
    std::istringstream words(line);
    std::string key, path;
    words >> key;
    if (key == "boot") words >> journal.boot;
    if (key == "namespace") {
      words >> journal.space_inode >> std::ws;
      std::getline(words, journal.space_path);
    }
    if (key == "link") words >> journal.index >> journal.link;
    if (key == "sysctl") words >> path >> journal.disable_ipv6;
    if (key == "down") journal.was_down = true;
    if (key == "end") return valid_link_name(journal.link) && journal.index > 0;
  }
  return false;
}

// Inside the namespace. The interface is the one of that index, whatever it is called by now: one of that
// name with another index is not the one that was changed.
Result<void> Takeover::undo(const Journal& journal) {
  char name[IF_NAMESIZE] = {};
  const auto is_there = [&] {
    return ::if_indextoname(static_cast<unsigned>(journal.index), name) != nullptr;
  };
  if (!is_there()) return {};
  if (journal.was_down) {
    if (auto done = set_link_up(name, false); !done) return done;
  }
  if (journal.disable_ipv6.empty()) return {};
  if (auto done = write_sysctl(ipv6_switch(name), journal.disable_ipv6); done || done.error().code != ENOENT)
    return done;
  // It is told that it has another name before its switches have.
  if (!settle_link(journal.index) || !is_there()) return {};
  auto done = write_sysctl(ipv6_switch(name), journal.disable_ipv6);
  // Below IPv6's least MTU there is none, and what comes back with a larger one is as on any interface.
  if (!done && done.error().code == ENOENT) return {};
  return done;
}

Result<std::size_t> Takeover::restore_stale(const std::string& directory) {
  std::unique_ptr<DIR, int (*)(DIR*)> listing(::opendir(directory.c_str()), ::closedir);
  if (listing == nullptr && errno == ENOENT) return std::size_t{0};
  if (listing == nullptr) return Error::from_errno(errno, directory);
  std::size_t restored = 0;
  Result<void> first;  // what could not be undone keeps its journal, and no other from being undone
  while (const dirent* entry = ::readdir(listing.get())) {
    const std::string name = entry->d_name;
    if (!name.starts_with("takeover-") || !name.ends_with(".journal")) continue;
    const std::string path = directory + "/" + name;
    const Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd.valid() || !lock_if_free(fd.get())) continue;
    Journal journal;
    const bool whole = parse_journal(read_all(fd.get()), journal);
    if (whole && journal.boot == this_boot()) {
      // A namespace that can't be found under its name any more has ended, and its interfaces with it.
      const auto space = NetworkNamespace::open(journal.space_path);
      if (space && space->inode() == journal.space_inode) {
        if (auto done = space->run([&] { return undo(journal); }); !done) {
          if (first) first = done.error();
          continue;
        }
        ++restored;
      }
    }
    if (::unlink(path.c_str()) < 0 && first) first = Error::from_errno(errno, path);
  }
  if (!first) return first.error();
  return restored;
}

Result<void> Takeover::record(const std::string& directory) {
  // Parents first; whatever is wrong shows when the journal is opened.
  for (std::size_t slash = directory.find('/', 1);; slash = directory.find('/', slash + 1)) {
    ::mkdir(directory.substr(0, slash).c_str(), 0755);
    if (slash == std::string::npos) break;
  }
  path_ = directory + "/takeover-" + std::to_string(journal_.space_inode) + "-" +
          std::to_string(journal_.index) + ".journal";
  lock_ = Fd(::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!lock_.valid()) return Error::from_errno(errno, path_);
  if (!lock_if_free(lock_.get())) {
    path_.clear();
    return Error{EBUSY, "interface " + journal_.link + " is taken over by another process"};
  }
  const std::string text = write_journal(journal_);
  const bool written =
      ::ftruncate(lock_.get(), 0) == 0 &&
      ::pwrite(lock_.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()) &&
      ::fdatasync(lock_.get()) == 0;
  if (!written) return Error::from_errno(errno, path_);
  return {};
}

Result<std::unique_ptr<Takeover>> Takeover::begin(const NetworkNamespace& space, const std::string& link,
                                                  const std::string& directory) {
  if (auto done = restore_stale(directory); !done) return done.error();
  const auto facts = link_facts(link);
  if (!facts) return facts.error();
  const auto addresses = link_addresses(facts->index);
  if (!addresses) return addresses.error();
  if (!addresses->empty()) {
    return Error{EADDRINUSE, "interface " + link + " carries address " + addresses->front().text() +
                                 "; an interface of the switch has none, delete it first"};
  }
  std::unique_ptr<Takeover> taken(new Takeover());  // NOLINT: private constructor
  taken->space_ = std::make_unique<NetworkNamespace>(space);
  Journal& journal = taken->journal_;
  journal.boot = this_boot();
  journal.space_inode = space.inode();
  journal.space_path = space.path().empty() ? "" : space.path();
  journal.index = facts->index;
  journal.link = link;
  journal.was_down = !facts->up;
  // A kernel without IPv6 has no such switch, and needs none.
  if (const auto before = read_sysctl(ipv6_switch(link))) journal.disable_ipv6 = *before;
  if (auto done = taken->record(directory); !done) return done.error();

  auto guard = IngressGuard::raise(link);
  if (!guard) return guard.error();
  taken->guard_ = std::make_unique<IngressGuard>(std::move(*guard));
  if (!journal.disable_ipv6.empty()) {
    if (auto done = write_sysctl(ipv6_switch(link), "1"); !done) return done.error();
  }
  if (journal.was_down) {
    if (auto done = set_link_up(link, true); !done) return done.error();
  }
  return taken;
}

Takeover::~Takeover() {
  if (path_.empty()) return;
  // What can't be undone now stays in the journal for the next start.
  const auto done = space_->run([&] { return undo(journal_); });
  if (done) ::unlink(path_.c_str());
}

}  // namespace penstock::net
