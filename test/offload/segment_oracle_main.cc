// segment_oracle kernel FIRST COUNT    compare COUNT seeds with the kernel; one JSON line at the end
// segment_oracle damaged FIRST COUNT   the same with one bit of ours wrong: must find it
// segment_oracle pcap FIRST COUNT FILE write our packets of every kind of tunnel, for another judge
// segment_oracle stt FIRST COUNT FILE  the same for STT, whose inner frames stay whole
//
// Exit 0: all equal; 1: a difference, told on stderr with its seed; 2: misuse; 3: this machine lacks
// something.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <stdexcept>

#include "native/offload/checksum_offload.h"
#include "native/offload/segment.h"
#include "native/offload/tunnel.h"
#include "test/offload/segment_oracle.h"

using namespace penstock::net;
using namespace penstock::net::test;

namespace {

// What differs, as the report says it; empty when nothing does. The mask is closed: outer source port, outer
// identification, and the inner identification of packets with DF.
std::string difference(Bytes ours, Bytes kernels) {
  if (ours.size() != kernels.size()) {
    return "length " + std::to_string(ours.size()) + ", the kernel's " + std::to_string(kernels.size());
  }
  for (Bytes* frame : {&ours, &kernels}) {
    const Layout layout = layout_of(*frame);
    const bool tunnel = layout.tunnel != TunnelKind::none;
    const Headers& inner = tunnel ? layout.inner : layout.outer;
    const auto mask_id = [&](const Headers& headers, bool always) {
      if (headers.ip_version != 4) return;
      if (!always && (get16(*frame, headers.network + 6u) & 0x4000) == 0) return;
      set16(*frame, headers.network + 4u, 0);
      set16(*frame, headers.network + 10u, 0);  // its checksum has the identification in it
    };
    mask_id(inner, false);
    if (!tunnel) continue;
    mask_id(layout.outer, true);
    if (layout.outer.transport != kNoHeader) set16(*frame, layout.outer.transport, 0);
  }
  for (std::size_t at = 0; at < ours.size(); ++at) {
    if (ours[at] == kernels[at]) continue;
    char text[96];
    std::snprintf(text, sizeof(text), "byte %zu of %zu: ours %02x, the kernel's %02x", at, ours.size(),
                  static_cast<unsigned>(ours[at]), static_cast<unsigned>(kernels[at]));
    return text;
  }
  return {};
}

std::vector<Bytes> our_segments(PacketPool& pool, const Scenario& of, std::mt19937& random) {
  const Bytes frame = superframe_of(of);
  const Layout layout = layout_of(frame);
  const Headers& target = of.tunnel == TunnelKind::none ? layout.outer : layout.inner;
  Packet* packet = load(pool, frame, target.payload + random() % 1800, 1 + random() % 4);
  if (packet == nullptr || parse(*packet) != DropReason::none)
    throw std::runtime_error("cannot load a frame");
  if (of.tunnel != TunnelKind::none && parse_inner(*packet) != DropReason::none) {
    throw std::runtime_error("cannot parse a frame");
  }
  packet->offload = offload_of(of, packet->layout);
  std::vector<Bytes> segments;
  if (!of.gso()) {
    complete_checksum(*packet);
    segments.push_back(bytes_of(*packet));
  } else {
    Segmenter segmenter;
    if (segmenter.begin(*packet) != DropReason::none) throw std::runtime_error("cannot segment");
    while (Packet* segment = segmenter.next()) {
      segments.push_back(bytes_of(*segment));
      PacketPool::release(segment);
    }
  }
  PacketPool::release(packet);
  return segments;
}

int compare(unsigned first, unsigned count, bool damaged, PacketPool& pool) {
  oracle::KernelPath kernel;
  ScenarioBounds bounds;
  bounds.tunnels = {TunnelKind::none, TunnelKind::vxlan, TunnelKind::geneve};
  if (!kernel.tunnels_missing().empty()) {
    std::fprintf(stderr, "left out: %s\n", kernel.tunnels_missing().c_str());
    bounds.tunnels = {TunnelKind::none};
  }
  std::map<std::string, unsigned> tried;
  std::size_t packets = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    std::mt19937 random(seed);
    Scenario of = random_scenario(random, bounds);
    std::vector<Bytes> ours = our_segments(pool, of, random);
    if (damaged) ours.back().back() ^= std::byte{1};
    const Bytes frame = superframe_of(of);
    kernel.write(frame, offload_of(of, layout_of(frame)), of.outer_v6);
    const std::vector<Bytes> kernels = kernel.read(ours.size());
    std::string wrong;
    if (ours.size() != kernels.size()) {
      wrong = std::to_string(ours.size()) + " packets, the kernel's " + std::to_string(kernels.size());
    }
    for (std::size_t i = 0; i < ours.size() && wrong.empty(); ++i) {
      wrong = difference(ours[i], kernels[i]);
      if (!wrong.empty()) wrong = "packet " + std::to_string(i) + ": " + wrong;
    }
    if (!wrong.empty()) {
      std::fprintf(stderr, "seed %u (%s): %s\n", seed, describe(of).c_str(), wrong.c_str());
      return 1;
    }
    packets += ours.size();
    const char* kind = of.tunnel == TunnelKind::none    ? "plain"
                       : of.tunnel == TunnelKind::vxlan ? "vxlan"
                                                        : "geneve";
    ++tried[std::string(kind) +
            (of.tunnel == TunnelKind::none ? ""
             : of.outer_v6                 ? "/6"
                                           : "/4") +
            (of.inner_v6 ? "/6" : "/4") + (of.udp ? "/udp" : "/tcp")];
  }
  std::printf("{\"seeds\":%u,\"packets\":%zu,\"kinds\":{", count, packets);
  const char* comma = "";
  for (const auto& [name, times] : tried) {
    std::printf("%s\"%s\":%u", comma, name.c_str(), times);
    comma = ",";
  }
  std::printf("}}\n");
  return 0;
}

class PcapFile {
 public:
  explicit PcapFile(const char* path) : file_(std::fopen(path, "wb")) {
    if (file_ == nullptr) throw std::runtime_error(std::string("cannot write ") + path);
    const uint32_t header[6] = {0xa1b2c3d4, 4U << 16 | 2, 0, 0, 262144, 1};
    write(header, sizeof(header));
  }
  ~PcapFile() { std::fclose(file_); }
  void add(const Bytes& frame) {
    const auto length = static_cast<uint32_t>(frame.size());
    const uint32_t header[4] = {++count_, 0, length, length};
    write(header, sizeof(header));
    write(frame.data(), frame.size());
  }
  uint32_t count() const { return count_; }

 private:
  void write(const void* bytes, std::size_t length) {
    if (std::fwrite(bytes, 1, length, file_) != length) throw std::runtime_error("cannot write the capture");
  }
  FILE* file_;
  uint32_t count_ = 0;
};

int write_pcap(unsigned first, unsigned count, PacketPool& pool, const char* path) {
  PcapFile file(path);
  for (unsigned seed = first; seed < first + count; ++seed) {
    std::mt19937 random(seed);
    const Scenario of = random_scenario(random);
    for (const Bytes& frame : our_segments(pool, of, random)) file.add(frame);
  }
  std::printf("{\"packets\":%u}\n", file.count());
  return 0;
}

int write_stt(unsigned first, unsigned count, PacketPool& pool, const char* path) {
  PcapFile file(path);
  unsigned frames = 0;
  for (unsigned seed = first; seed < first + count; ++seed) {
    std::mt19937 random(seed);
    Scenario of = random_scenario(random, {.tunnels = {TunnelKind::none}});
    of.mss = of.payload.size();  // one packet with a finished checksum, so that the judge finds nothing open
    const Bytes frame = expected_segments(of)[0];
    Packet* packet = load(pool, frame, 1700);
    if (packet == nullptr || parse(*packet) != DropReason::none) throw std::runtime_error("cannot load");
    packet->offload.checksum = ChecksumState::verified;
    TunnelPath path_of;
    path_of.kind = TunnelKind::stt;
    path_of.ip_version = 4;
    path_of.source = {10, 0, 0, 1};
    path_of.destination = {10, 0, 0, 2};
    if (encapsulate(*packet, TunnelTemplate(path_of), seed) != DropReason::none)
      throw std::runtime_error("stt");
    if (packet->offload.gso == Gso::none) {
      complete_checksum(*packet);
      file.add(bytes_of(*packet));
    } else {
      Segmenter segmenter;
      if (segmenter.begin(*packet) != DropReason::none) throw std::runtime_error("cannot segment");
      while (Packet* segment = segmenter.next()) {
        file.add(bytes_of(*segment));
        PacketPool::release(segment);
      }
    }
    PacketPool::release(packet);
    ++frames;
  }
  std::printf("{\"packets\":%u,\"frames\":%u}\n", file.count(), frames);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string mode = argc > 1 ? argv[1] : "";
  const bool needs_file = mode == "pcap" || mode == "stt";
  if (argc != (needs_file ? 5 : 4) || (mode != "kernel" && mode != "damaged" && !needs_file)) {
    std::fprintf(stderr, "usage: segment_oracle kernel|damaged|pcap|stt FIRST COUNT [FILE]\n");
    return 2;
  }
  const auto first = static_cast<unsigned>(std::strtoul(argv[2], nullptr, 10));
  const auto count = static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10));
  auto pool = PacketPool::create({.packets = 256, .bodies = 4, .slice_tables = 128});
  if (!pool) return 3;
  (*pool)->adopt();
  try {
    if (mode == "pcap") return write_pcap(first, count, **pool, argv[4]);
    if (mode == "stt") return write_stt(first, count, **pool, argv[4]);
    return compare(first, count, mode == "damaged", **pool);
  } catch (const std::runtime_error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 3;
  }
}
