// Changes: stage, drop, and the group commit behind both.
#include "native/extent/extent_store.h"

#include <algorithm>
#include <optional>
#include <set>

#include "native/extent/frame.h"
#include "native/extent/page_transfer.h"

namespace penstock::extent {
namespace {

constexpr int kPlanAttemptsMax = 1000;  // each failed attempt saw somebody else take what growth had added

using Key = std::pair<uint64_t, uint64_t>;

}  // namespace

// The versions that exist once the changes before this one in the group are applied.
class ExtentStore::GroupView {
 public:
  explicit GroupView(const StripeMap& map) : map_(map) {}

  bool contains(uint64_t stripe, uint64_t version) const {
    const Key key{stripe, version};
    if (added_.contains(key)) return true;
    return !removed_.contains(key) && map_.contains(stripe, version);
  }

  // All changes of the commit, or none and why.
  Result<void> add(const Commit& commit) {
    std::vector<Key> added;
    for (const StageChange& change : commit.stages) {
      Result<void> fits;
      const std::string name =
          "stripe " + std::to_string(change.stripe) + " version " + std::to_string(change.version);
      if (change.base != 0 && !contains(change.stripe, change.base)) {
        fits = Error{ENOENT,
                     name + ": its base version " + std::to_string(change.base) + " was dropped meanwhile"};
      } else if (contains(change.stripe, change.version)) {
        fits = Error{EEXIST, name + " exists already"};
      }
      if (!fits) {
        for (const Key& key : added) added_.erase(key);
        return fits;
      }
      added.emplace_back(change.stripe, change.version);
      added_.insert(added.back());
    }
    return {};
  }

  bool remove(const VersionKey& key) {
    if (!contains(key.stripe, key.version)) return false;
    added_.erase({key.stripe, key.version});
    removed_.insert({key.stripe, key.version});
    return true;
  }

 private:
  const StripeMap& map_;
  std::set<Key> added_;
  std::set<Key> removed_;
};

Error ExtentStore::fail(Error cause) {
  const std::scoped_lock lock(failure_mutex_);
  if (!failed_.load(std::memory_order_relaxed)) {
    failure_ = {EIO, "store " + directory_ + " stopped, reopen it to recover: " + cause.message};
    failed_.store(true, std::memory_order_release);
  }
  return failure_;
}

Result<void> ExtentStore::healthy() const {
  if (!failed_.load(std::memory_order_acquire)) return {};
  const std::scoped_lock lock(failure_mutex_);
  return failure_;
}

Result<void> ExtentStore::stage(std::span<const StageItem> items, PageSource& source) {
  if (auto well = healthy(); !well) return well;
  if (items.empty()) return {};
  std::optional<ReaderEpochs::Guard> guard;  // moved blocks are read from their old pages
  guard.emplace(epochs_.enter());
  Result<StagePlan> planned = plan_with_growth(items);
  if (!planned) {
    if (planned.error().code == ENOSPC) counters_.refused_full++;
    return planned.error();
  }
  StagePlan& plan = *planned;
  if (plan.pages_moved == 0) guard.reset();
  if (!plan.transfers.empty()) {
    std::vector<File*> files;
    {
      const std::shared_lock lock(state_mutex_);
      for (const auto& extent : extents_) files.push_back(extent == nullptr ? nullptr : &extent->file());
    }
    if (auto failure = PageTransfer(plan, items, source, files).run()) {
      if (failure->is_fatal) return fail(std::move(failure->error));
      abandon(plan);
      return std::move(failure->error);
    }
  }
  guard.reset();

  Commit commit;
  const uint64_t now_s = options_.now_ms() / 1000;
  for (const StageItem& item : items) {
    const uint64_t limit = item.keep_pages == kKeepAllPages
                               ? kBlocksPerStripeMax
                               : std::min<uint64_t>(kBlocksPerStripeMax,
                                                    (item.keep_pages + kPagesPerBlock - 1) / kPagesPerBlock);
    commit.stages.push_back({item.stripe,
                             item.base_version,
                             item.new_version,
                             static_cast<uint32_t>(now_s),
                             static_cast<uint32_t>(limit),
                             {}});
  }
  for (const PlannedBlock& block : plan.blocks)
    commit.stages[block.item].blocks.push_back(block.pages.pack(block.index));
  for (const StageChange& change : commit.stages) encode(change, commit.encoded);
  for (const StagePlan::Taken& taken : plan.taken) {
    if (commit.touched.empty() || commit.touched.back() != taken.extent)
      commit.touched.push_back(taken.extent);
  }
  submit(commit);
  if (!commit.outcome) {
    abandon(plan);
    return commit.outcome;
  }
  counters_.stages += items.size();
  counters_.pages_written += plan.pages_fresh;
  counters_.pages_moved += plan.pages_moved;
  after_change();
  return {};
}

Result<StagePlan> ExtentStore::plan_with_growth(std::span<const StageItem> items) {
  bool may_grow = true;
  Error last{ENOSPC, "store " + directory_ + " is full"};
  for (int attempt = 0; attempt < kPlanAttemptsMax; attempt++) {
    Shortage shortage;
    uint64_t generation = 0;
    {
      const std::unique_lock lock(state_mutex_);
      for (const auto& extent : extents_) {
        if (extent != nullptr) extent->reclaim(epochs_.oldest());
      }
      StagePlanner planner(map_, extents_, [&](int extent) { return may_grow && can_grow(extent); });
      Result<StagePlan> plan = planner.plan(items);
      if (plan) {
        policy_.allocated(plan->pages_fresh, options_.now_ms());
        return plan;
      }
      if (plan.error().code != ENOSPC) return plan.error();
      if (planner.shortage().pages == 0) return last;
      shortage = planner.shortage();
      generation = generation_;
    }
    if (auto grown = grow(shortage, generation, false); !grown) {
      if (grown.error().code != ENOSPC) return fail(grown.error());
      may_grow = false;
    }
  }
  return last;
}

void ExtentStore::abandon(const StagePlan& plan) {
  const std::unique_lock lock(state_mutex_);
  for (const StagePlan::Taken& taken : plan.taken) extents_[taken.extent]->abandon(taken.run);
}

Result<uint64_t> ExtentStore::drop(std::span<const VersionKey> versions) {
  if (auto well = healthy(); !well) return well.error();
  Commit commit;
  {
    const std::shared_lock lock(state_mutex_);
    for (const VersionKey& key : versions) {
      if (map_.contains(key.stripe, key.version)) commit.drops.push_back(key);
    }
  }
  if (commit.drops.empty()) return uint64_t{0};
  submit(commit);
  if (!commit.outcome) return commit.outcome.error();
  counters_.drops += commit.dropped;
  after_change();
  return commit.dropped;
}

void ExtentStore::submit(Commit& commit) {
  if (commit.weight() > kFramePayloadMax) {
    commit.outcome = Error{E2BIG, "one batch changes too many pages: split it"};
    return;
  }
  commits_.submit(commit, kFramePayloadMax / 4, [this](std::span<Commit* const> group) { run_group(group); });
}

void ExtentStore::run_group(std::span<Commit* const> group) {
  counters_.commit_groups++;
  Result<void> outcome = healthy();
  if (outcome) outcome = sync_touched(group);
  if (!outcome) {
    for (Commit* commit : group) commit->outcome = outcome;
    return;
  }
  outcome = write_group(group, Journal::Room::normal);
  if (!outcome && outcome.error().code == ENOSPC) {
    // Stages need room, drops make it: they may use what is reserved.
    counters_.refused_full++;
    for (Commit* commit : group) {
      if (!commit->stages.empty()) commit->outcome = outcome;
    }
    outcome = write_group(group, Journal::Room::reserve);
  }
  if (outcome) {
    apply_group(group);
    return;
  }
  Error cause = outcome.error().code == ENOSPC ? outcome.error() : fail(outcome.error());
  for (Commit* commit : group) {
    if (commit->outcome) commit->outcome = cause;
  }
}

Result<void> ExtentStore::sync_touched(std::span<Commit* const> group) {
  std::vector<File*> files;
  {
    std::set<uint16_t> touched;
    for (const Commit* commit : group) touched.insert(commit->touched.begin(), commit->touched.end());
    const std::shared_lock lock(state_mutex_);
    for (const uint16_t id : touched) files.push_back(&extents_[id]->file());
  }
  for (File* file : files) {
    if (auto done = file->sync_data(); !done) return fail(done.error());
  }
  return {};
}

// One frame with every change of the group that still fits.
Result<void> ExtentStore::write_group(std::span<Commit* const> group, Journal::Room room) {
  std::vector<std::byte> payload;
  {
    const std::shared_lock lock(state_mutex_);
    GroupView view(map_);
    for (Commit* commit : group) {
      if (!commit->outcome) continue;
      if (commit->outcome = view.add(*commit); !commit->outcome) continue;
      payload.insert(payload.end(), commit->encoded.begin(), commit->encoded.end());
      std::erase_if(commit->drops, [&](const VersionKey& key) { return !view.remove(key); });
      for (const VersionKey& key : commit->drops) encode(DropChange{key.stripe, key.version}, payload);
    }
  }
  if (payload.empty()) return {};
  auto done = journal_->append(payload, room);
  journal_bytes_ = journal_->bytes_written();
  return done;
}

void ExtentStore::apply_group(std::span<Commit* const> group) {
  const std::unique_lock lock(state_mutex_);
  const uint64_t stamp = epochs_.retire();
  for (Commit* commit : group) {
    if (!commit->outcome) continue;
    for (const StageChange& change : commit->stages) map_.apply(change);
    for (const VersionKey& key : commit->drops) map_.apply(DropChange{key.stripe, key.version}, stamp);
    commit->dropped = commit->drops.size();
  }
  for (const auto& extent : extents_) {
    if (extent != nullptr) extent->reclaim(epochs_.oldest());
  }
}

}  // namespace penstock::extent
