// How RocksDB is set up, and what its errors mean to us.
#pragma once

#include <rocksdb/options.h>
#include <rocksdb/status.h>

#include <string>

#include "native/base/result.h"

namespace penstock::kv {

rocksdb::Options rocks_options(std::size_t block_cache_bytes);

Error to_error(const rocksdb::Status& status, const std::string& what);

// For a failed open: as `to_error`, but a lock that someone holds becomes EWOULDBLOCK and names the process.
Error open_error(const rocksdb::Status& status, const std::string& directory);

}  // namespace penstock::kv
