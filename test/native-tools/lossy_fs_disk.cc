// The state of the disk as programs see it, and what of it is not synced yet.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <ctime>

#include "lossy_fs.h"

namespace lossy {
namespace {

// More unsynced pages of one file than this are written back, as the kernel would do: bounds memory.
constexpr std::size_t kChangesMax = 32'768;

timespec now() {
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  return time;
}

}  // namespace

bool Inode::is_directory() const {
  return S_ISDIR(mode);
}

Disk::Disk() : root_(std::make_shared<Inode>()) {
  root_->number = next_number_++;
  root_->mode = S_IFDIR | 0755;
  root_->mtime = now();
  root_->links = 1;
  root_->lookups = 1;
}

void Disk::record(std::vector<NameChange> names) {
  ++sequence_;
  for (const NameChange& change : names) {
    change.directory->last_journal_sequence = sequence_;
    change.directory->mtime = now();
    if (change.inode) change.inode->last_journal_sequence = sequence_;
    const auto old = change.directory->entries.find(change.name);
    if (old != change.directory->entries.end()) {
      old->second->last_journal_sequence = sequence_;
      old->second->links -= 1;
      change.directory->entries.erase(old);
    }
  }
  for (const NameChange& change : names) {
    if (!change.inode) continue;
    change.directory->entries[change.name] = change.inode;
    change.inode->links += 1;
    if (change.inode->is_directory()) change.inode->parent = change.directory.get();
  }
  journal_.push_back({sequence_, std::move(names)});
}

void Disk::commit(uint64_t sequence) {
  committed_ = std::max(committed_, sequence);
  while (!journal_.empty() && journal_.front().sequence <= committed_) {
    for (const NameChange& change : journal_.front().names)
      change.directory->durable_entries.erase(change.name);
    for (const NameChange& change : journal_.front().names) {
      if (change.inode) change.directory->durable_entries[change.name] = change.inode;
    }
    journal_.pop_front();
  }
}

InodePtr Disk::create(const InodePtr& directory, const std::string& name, mode_t mode) {
  auto inode = std::make_shared<Inode>();
  inode->number = next_number_++;
  inode->mode = mode;
  inode->mtime = now();
  record({{directory, name, inode}});
  return inode;
}

void Disk::remove(const InodePtr& directory, const std::string& name) {
  record({{directory, name, nullptr}});
}

void Disk::rename(const InodePtr& from, const std::string& name, const InodePtr& to,
                  const std::string& new_name, bool exchange) {
  const InodePtr moved = from->entries.at(name);
  const InodePtr other = exchange ? to->entries.at(new_name) : nullptr;
  record({{from, name, other}, {to, new_name, moved}});
}

void Disk::note(Inode& file, Change change) {
  if (change.kind != ChangeKind::write) file.last_journal_sequence = sequence_;
  file.mtime = now();
  file.changes.push_back(std::move(change));
  if (file.changes.size() > kChangesMax) sync(file);
}

void Disk::store_page(Inode& file, uint64_t page, uint64_t from, const uint8_t* bytes, uint64_t length) {
  const auto old = file.pages.find(page);
  auto made =
      old == file.pages.end() ? std::make_shared<PageBytes>() : std::make_shared<PageBytes>(*old->second);
  std::memcpy(made->data() + from, bytes, length);
  file.pages[page] = made;
}

void Disk::write(Inode& file, uint64_t offset, const uint8_t* bytes, uint64_t length) {
  ++sequence_;
  const uint64_t end = offset + length;
  while (offset < end) {
    const uint64_t page = offset / kPageBytes;
    const uint64_t from = offset % kPageBytes;
    const uint64_t count = std::min(end - offset, kPageBytes - from);
    store_page(file, page, from, bytes, count);
    offset += count;
    bytes += count;
    file.size = std::max(file.size, offset);
    note(file, {ChangeKind::write, sequence_, page, 0, offset, file.pages[page]});
  }
}

void Disk::read(const Inode& file, uint64_t offset, uint8_t* out, uint64_t length) const {
  while (length > 0) {
    const uint64_t from = offset % kPageBytes;
    const uint64_t count = std::min(length, kPageBytes - from);
    const auto found = file.pages.find(offset / kPageBytes);
    if (found == file.pages.end()) {
      std::memset(out, 0, count);
    } else {
      std::memcpy(out, found->second->data() + from, count);
    }
    offset += count;
    out += count;
    length -= count;
  }
}

void Disk::truncate(Inode& file, uint64_t size) {
  ++sequence_;
  cut_pages(file.pages, size);
  file.size = size;
  note(file, {ChangeKind::truncate, sequence_, 0, 0, size, nullptr});
}

void Disk::grow(Inode& file, uint64_t size) {
  if (size <= file.size) return;
  ++sequence_;
  file.size = size;
  note(file, {ChangeKind::grow, sequence_, 0, 0, size, nullptr});
}

void Disk::punch(Inode& file, uint64_t offset, uint64_t length) {
  const uint64_t end = std::min(offset + length, (file.size + kPageBytes - 1) / kPageBytes * kPageBytes);
  const static PageBytes zeros{};
  // The parts of pages at both ends are ordinary writes of zeros.
  while (offset < end && offset % kPageBytes != 0) {
    const uint64_t count = std::min(end - offset, kPageBytes - offset % kPageBytes);
    const uint64_t size = file.size;
    write(file, offset, zeros.data(), std::min(count, size > offset ? size - offset : 0));
    offset += count;
  }
  if (offset >= end) return;
  const uint64_t whole_end = end / kPageBytes;
  if (whole_end > offset / kPageBytes) {
    ++sequence_;
    file.pages.erase(file.pages.lower_bound(offset / kPageBytes), file.pages.lower_bound(whole_end));
    note(file, {ChangeKind::punch, sequence_, offset / kPageBytes, whole_end, 0, nullptr});
  }
  const uint64_t tail_end = std::min(end, file.size);
  if (tail_end > whole_end * kPageBytes)
    write(file, whole_end * kPageBytes, zeros.data(), tail_end - whole_end * kPageBytes);
}

void Disk::sync(Inode& inode) {
  inode.durable_size = inode.size;
  inode.durable_pages = inode.pages;
  inode.changes.clear();
  commit(inode.last_journal_sequence);
}

void cut_pages(Pages& pages, uint64_t size) {
  pages.erase(pages.lower_bound((size + kPageBytes - 1) / kPageBytes), pages.end());
  const uint64_t tail = size % kPageBytes;
  const auto last = pages.find(size / kPageBytes);
  if (tail == 0 || last == pages.end()) return;
  auto zeroed = std::make_shared<PageBytes>(*last->second);
  std::memset(zeroed->data() + tail, 0, kPageBytes - tail);
  last->second = zeroed;
}

}  // namespace lossy
