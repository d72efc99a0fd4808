// What must be on the machine before anything of ours can be built, run or tested, and which Debian or Ubuntu package
// brings it. This table is the only place that names system packages. A row is satisfied by what it provides (a command,
// a header, a library), not by a package being registered, so that a compiler from elsewhere counts too.
import { execFileSync } from 'node:child_process';
import { accessSync, constants, existsSync, readdirSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run, SetupFailure } from './run.mjs';

/**
 * `phase`: 'run' rows are needed by every set-up, 'test' rows only by `npm test`. `packages`: alternatives, the first one
 * that the distribution has is installed; a function is asked when the row is missing. `services`: what the package starts
 * on its own, stopped and disabled again after it was installed here: the tests start what they need themselves.
 */
const TABLE = [
  { what: 'C++ compiler', phase: 'run', present: () => command('g++') || command('c++'), packages: ['g++'] },
  { what: 'make', phase: 'run', present: () => command('make'), packages: ['make'] },
  { what: 'Python for node-gyp', phase: 'run', present: () => command('python3'), packages: ['python3'] },
  {
    what: 'RocksDB',
    phase: 'run',
    present: () => existsSync('/usr/include/rocksdb/db.h'),
    packages: ['librocksdb-dev'],
  },
  { what: 'fusermount3', phase: 'run', present: () => command('fusermount3'), packages: ['fuse3'] },
  {
    what: 'libfuse 2 for the fuse-native transport',
    phase: 'run',
    present: () => library('libfuse.so.2'),
    packages: ['libfuse2t64', 'libfuse2'],
  },
  { what: 'clang', phase: 'test', present: () => clang() !== undefined, packages: ['clang-14', 'clang'] },
  {
    what: 'sanitizer and fuzzer runtimes of clang',
    phase: 'test',
    present: clangRuntime,
    packages: () => [`libclang-rt-${clangMajor()}-dev`, `libclang-common-${clangMajor()}-dev`],
  },
  {
    what: 'clang-format',
    phase: 'test',
    present: () => command('clang-format-14') || command('clang-format'),
    packages: ['clang-format-14', 'clang-format'],
  },
  { what: 'cmake', phase: 'test', present: () => command('cmake'), packages: ['cmake'] },
  { what: 'ninja', phase: 'test', present: () => command('ninja'), packages: ['ninja-build'] },
  {
    what: 'doctest',
    phase: 'test',
    present: () => existsSync('/usr/include/doctest/doctest.h'),
    packages: ['doctest-dev'],
  },
  {
    what: 'libfuse 3',
    phase: 'test',
    present: () => existsSync('/usr/include/fuse3/fuse_lowlevel.h'),
    packages: ['libfuse3-dev'],
  },
  { what: 'git', phase: 'test', present: () => command('git'), packages: ['git'] },
  { what: 'sqlite3', phase: 'test', present: () => command('sqlite3'), packages: ['sqlite3'] },
  { what: 'rsync', phase: 'test', present: () => command('rsync'), packages: ['rsync'] },
  { what: 'tshark', phase: 'test', present: () => command('tshark'), packages: ['tshark'] },
  { what: 'ip', phase: 'test', present: () => command('ip'), packages: ['iproute2'] },
  { what: 'nft', phase: 'test', present: () => command('nft'), packages: ['nftables'] },
  { what: 'iperf3', phase: 'test', present: () => command('iperf3'), packages: ['iperf3'] },
  { what: 'ping', phase: 'test', present: () => command('ping'), packages: ['iputils-ping'] },
  { what: 'ethtool', phase: 'test', present: () => command('ethtool'), packages: ['ethtool'] },
  { what: 'tcpdump', phase: 'test', present: () => command('tcpdump'), packages: ['tcpdump'] },
  {
    what: 'Open vSwitch',
    phase: 'test',
    present: () => command('ovs-vswitchd'),
    packages: ['openvswitch-switch'],
    services: ['openvswitch-switch', 'ovs-vswitchd', 'ovsdb-server'],
  },
  { what: 'fio', phase: 'test', present: () => command('fio'), packages: ['fio'] },
  { what: 'setfattr', phase: 'test', present: () => command('setfattr'), packages: ['attr'] },
  { what: 'spin', phase: 'test', present: () => command('spin'), packages: ['spin'] },
  {
    what: 'libfaketime',
    phase: 'test',
    present: () => library('faketime/libfaketimeMT.so.1'),
    packages: ['faketime'],
  },
  { what: 'setfacl', phase: 'test', present: () => command('setfacl'), packages: ['acl'] },
];

/** Installs what is missing when it can (root, apt-get), else throws one line that names it. */
export async function systemPackages({ test, say }) {
  const missing = missingRows(test);
  if (missing.length === 0) return;
  if (!command('apt-get')) {
    const names = missing.map((row) => row.what).join(', ');
    throw new SetupFailure(`missing: ${names}; install them with your package manager and run this again`);
  }
  if (process.getuid() !== 0) {
    const names = packageNames(missing).join(' ');
    throw new SetupFailure(`missing packages; run this and try again: sudo apt-get install ${names}`);
  }
  const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  const wait = ['-o', 'DPkg::Lock::Timeout=300'];
  if (!listsKnow(missing)) {
    say('package lists');
    await run('apt-get', [...wait, 'update'], {
      log: 'apt',
      env: environment,
      advice: 'check the network and /etc/apt/sources.list',
    });
  }
  // The compiler's version decides the name of its runtime package, so a second round may follow.
  for (let round = 0; round < 2; round += 1) {
    const rows = missingRows(test);
    if (rows.length === 0) return;
    const names = packageNames(rows);
    say(`system packages: ${names.join(' ')}`);
    await run('apt-get', [...wait, 'install', '-y', '--no-install-recommends', ...names], {
      log: 'apt',
      env: environment,
      advice: `run "apt-get install ${names.join(' ')}" by hand and look at its messages`,
    });
    const services = rows.flatMap((row) => row.services ?? []);
    if (services.length > 0 && existsSync('/run/systemd/system')) {
      await run('systemctl', ['disable', '--now', ...services], {
        log: 'services',
        advice: 'the package starts them, the tests do not need them',
      });
    }
  }
  const left = missingRows(test);
  if (left.length > 0) {
    throw new SetupFailure(`still missing after apt-get: ${left.map((row) => row.what).join(', ')}`);
  }
}

function missingRows(test) {
  return TABLE.filter((row) => (test || row.phase === 'run') && !row.present());
}

function packageNames(rows) {
  return rows.map((row) => {
    const alternatives = candidates(row);
    return alternatives.find(available) ?? alternatives.at(-1);
  });
}

function candidates(row) {
  return typeof row.packages === 'function' ? row.packages() : row.packages;
}

function listsKnow(rows) {
  return rows.every((row) => candidates(row).some(available));
}

function available(name) {
  try {
    const policy = execFileSync('apt-cache', ['policy', name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    return /Candidate: (?!\(none\))/.test(policy);
  } catch {
    return false; // apt-cache is absent or knows no such name: both mean "not available"
  }
}

function command(name) {
  return (process.env.PATH ?? '').split(delimiter).some((directory) => {
    const path = join(directory, name);
    try {
      accessSync(path, constants.X_OK);
      return statSync(path).isFile();
    } catch {
      return false;
    }
  });
}

function library(name) {
  const roots = ['/lib', '/usr/lib', '/lib64', '/usr/lib64', '/usr/local/lib'].filter(existsSync);
  return roots.some(
    (root) =>
      existsSync(join(root, name)) ||
      readdirSync(root, { withFileTypes: true })
        .filter((entry) => entry.isDirectory() && entry.name.includes('linux-gnu'))
        .some((entry) => existsSync(join(root, entry.name, name))),
  );
}

/** The clang++ that the native tests use: version 14 where there is one, else the distribution's own. */
function clang() {
  return ['clang++-14', 'clang++'].find(command);
}

function clangMajor() {
  const compiler = clang();
  if (compiler !== undefined) {
    const version = execFileSync(compiler, ['-dumpversion'], { encoding: 'utf8' });
    return Number.parseInt(version, 10);
  }
  if (available('clang-14')) return 14;
  const depends = execFileSync('apt-cache', ['depends', 'clang'], { encoding: 'utf8' });
  return Number.parseInt(/clang-(\d+)/.exec(depends)?.[1] ?? '14', 10);
}

function clangRuntime() {
  const compiler = clang();
  if (compiler === undefined) return false;
  const directory = execFileSync(compiler, ['-print-resource-dir'], { encoding: 'utf8' }).trim();
  const libraries = join(directory, 'lib');
  if (!existsSync(libraries)) return false;
  return readdirSync(libraries, { recursive: true }).some((name) =>
    /libclang_rt\.fuzzer[^/]*\.a$/.test(name),
  );
}
