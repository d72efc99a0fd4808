// The request parser: what the kernel sends is taken apart, what it never sends is refused.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "native/fuse/request.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <vector>

using namespace penstock::fuse;

namespace {

using Bytes = std::vector<std::byte>;

template <typename Value>
void append(Bytes& bytes, const Value& value) {
  const auto* data = reinterpret_cast<const std::byte*>(&value);
  bytes.insert(bytes.end(), data, data + sizeof(value));
}

void append_name(Bytes& bytes, const std::string& name) {
  for (const char letter : name) bytes.push_back(static_cast<std::byte>(letter));
  bytes.push_back(std::byte{0});
}

Bytes whole(Opcode opcode, const Bytes& body, uint16_t extension_words = 0) {
  Bytes bytes;
  InHeader header{};
  header.len = static_cast<uint32_t>(sizeof(header) + body.size());
  header.opcode = static_cast<uint32_t>(opcode);
  header.unique = 42;
  header.nodeid = 7;
  header.total_extlen = extension_words;
  append(bytes, header);
  bytes.insert(bytes.end(), body.begin(), body.end());
  return bytes;
}

}  // namespace

TEST_CASE("names follow the fixed arguments") {
  Bytes body;
  append(body, Rename2In{99, 1, 0});
  append_name(body, "old");
  append_name(body, "new name");
  const Bytes bytes = whole(Opcode::rename2, body);
  const auto request = parse_request(bytes);
  REQUIRE(request);
  CHECK(request->opcode() == Opcode::rename2);
  CHECK(request->header.nodeid == 7);
  CHECK(request->arguments<Rename2In>().newdir == 99);
  CHECK(request->names[0] == "old");
  CHECK(request->names[1] == "new name");
  CHECK(request->group == kNoGroup);
}

TEST_CASE("an extended attribute set by an old kernel is as one set by a new one") {
  Bytes body;
  append(body, uint32_t{4});  // size
  append(body, uint32_t{1});  // flags
  append_name(body, "user.colour");
  for (const char letter : std::string("blue")) body.push_back(static_cast<std::byte>(letter));
  const Bytes old = whole(Opcode::setxattr, body);
  const Bytes wide = widened_setxattr(old);
  const auto request = parse_request(wide);
  REQUIRE(request);
  const auto in = request->arguments<SetxattrIn>();
  CHECK(in.size == 4);
  CHECK(in.flags == 1);
  CHECK(in.setxattr_flags == 0);
  CHECK(request->names[0] == "user.colour");
  CHECK(request->tail(sizeof(SetxattrIn) + sizeof("user.colour")).size() == 4);
  for (std::size_t length = sizeof(InHeader); length < old.size(); ++length)
    CHECK_FALSE(parse_request(widened_setxattr(std::span(old).first(length))));
}

TEST_CASE("the supplementary group comes from the extension, which is no part of the body") {
  Bytes body;
  append(body, MkdirIn{0755, 022});
  append_name(body, "dir");
  while (body.size() % 8 != 0) body.push_back(std::byte{0});
  append(body, ExtHeader{16, kExtGroups});
  append(body, uint32_t{1});
  append(body, uint32_t{1234});
  const Bytes bytes = whole(Opcode::mkdir, body, 2);
  const auto request = parse_request(bytes);
  REQUIRE(request);
  CHECK(request->group == 1234);
  CHECK(request->names[0] == "dir");
  CHECK(request->body.size() == body.size() - 16);
}

TEST_CASE("refused: lengths that do not add up") {
  Bytes lookup;
  append_name(lookup, "x");
  Bytes bytes = whole(Opcode::lookup, lookup);
  SUBCASE("shorter than its header says") {
    bytes.pop_back();
  }
  SUBCASE("longer than its header says") {
    bytes.push_back(std::byte{0});
  }
  SUBCASE("no header") {
    bytes.resize(sizeof(InHeader) - 1);
  }
  SUBCASE("a name without end") {
    bytes = whole(Opcode::lookup, Bytes(3, std::byte{'x'}));
  }
  SUBCASE("no name at all") {
    bytes = whole(Opcode::lookup, {});
  }
  SUBCASE("arguments cut short") {
    bytes = whole(Opcode::setattr, Bytes(sizeof(SetattrIn) - 1));
  }
  SUBCASE("extensions longer than the body") {
    bytes = whole(Opcode::lookup, lookup, 1);
  }
  SUBCASE("a write with less data than it states") {
    Bytes body;
    append(body, WriteIn{0, 0, 4096, 0, 0, 0, 0});
    body.resize(body.size() + 4095);
    bytes = whole(Opcode::write, body);
  }
  SUBCASE("an attribute value with less data than it states") {
    Bytes body;
    append(body, SetxattrIn{8, 0, 0, 0});
    append_name(body, "user.x");
    bytes = whole(Opcode::setxattr, body);
  }
  SUBCASE("an extension of no size") {
    Bytes body = lookup;
    append(body, ExtHeader{0, kExtGroups});
    bytes = whole(Opcode::lookup, body, 1);
  }
  CHECK_FALSE(parse_request(bytes));
}

TEST_CASE("an opcode of a later kernel keeps its raw body") {
  const Bytes bytes = whole(static_cast<Opcode>(4000), Bytes(13));
  const auto request = parse_request(bytes);
  REQUIRE(request);
  CHECK(request->body.size() == 13);
}

TEST_CASE("random bytes never read outside the request") {
  std::mt19937 random(20);
  for (int round = 0; round < 20'000; ++round) {
    Bytes body(random() % 160);
    for (std::byte& byte : body) byte = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
    const Bytes bytes = whole(static_cast<Opcode>(random() % 60), body, static_cast<uint16_t>(random() % 3));
    const auto request = parse_request(bytes);
    if (!request) continue;
    for (const std::string_view name : request->names) CHECK(name.size() <= body.size());
    CHECK(request->body.size() <= body.size());
  }
}
