// rclone mount (full cache) and s3fs, both over an S3 server of their own on this machine (s3rver, from npm).
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { unmount, untilMounted } from './local.js';
import { type Peer, PeerUnavailable } from './peer.js';

const S3RVER = 's3rver@3.7.1';
const KEY = 'S3RVER';
const START_MS_MAX = 20_000;
const QUIET_MS = 1500;
const SETTLE_MS_MAX = 120_000;

interface S3Server {
  readonly url: string;
  readonly directory: string;
  stop(): void;
}

/** One server for each peer: neither pays for the other's backlog. */
async function startServer(base: string, name: string): Promise<S3Server> {
  const packages = join(base, 's3rver');
  const directory = join(base, `s3-${name}`);
  for (const path of [packages, directory]) mkdirSync(path, { recursive: true });
  try {
    const quiet = ['--no-audit', '--no-fund', '--loglevel=error', '--ignore-scripts'];
    execFileSync('npm', ['install', '--prefix', packages, ...quiet, S3RVER], { stdio: 'ignore' });
  } catch (error) {
    throw new PeerUnavailable(`npm cannot install ${S3RVER}`, { cause: error });
  }
  const port = await freePort();
  const argv = [
    '-d',
    directory,
    '-a',
    '127.0.0.1',
    '-p',
    String(port),
    '--silent',
    '--configure-bucket',
    'bench',
  ];
  const server = spawn(join(packages, 'node_modules/.bin/s3rver'), argv, { stdio: 'ignore' });
  const url = `http://127.0.0.1:${port}`;
  const end = performance.now() + START_MS_MAX;
  while (!(await fetch(url).catch(() => undefined))) {
    if (performance.now() > end) throw new PeerUnavailable('s3rver does not answer');
    await sleep(50);
  }
  return { url, directory, stop: () => server.kill('SIGKILL') };
}

/** Without what the user has set up for a real S3 service. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('AWS_')));
}

export const rclone: Peer = {
  name: 'rclone',
  slow: true,
  packages: ['rclone'],
  async start(base) {
    const server = await startServer(base, 'rclone');
    const path = join(base, 'rclone');
    mkdirSync(path);
    const store = ['--s3-provider', 'Other', '--s3-endpoint', server.url, '--s3-force-path-style=true'];
    const keys = ['--s3-access-key-id', KEY, '--s3-secret-access-key', KEY];
    const cache = [
      '--vfs-cache-mode',
      'full',
      '--cache-dir',
      join(base, 'rclone-cache'),
      '--vfs-write-back',
      '0s',
    ];
    const more = ['--dir-cache-time', '1h', '--attr-timeout', '1h', '--allow-other', '--config', '/dev/null'];
    const argv = ['mount', ':s3:bench', path, ...store, ...keys, ...cache, ...more];
    const daemon = spawn('rclone', argv, { stdio: 'ignore', env: environment() });
    await mountedOrStopped(path, daemon, server);
    return { path, settle: () => quiet(server.directory), stop: () => stopBoth(path, daemon.pid, server) };
  },
};

export const s3fs: Peer = {
  name: 's3fs',
  slow: true,
  packages: ['s3fs'],
  async start(base) {
    const server = await startServer(base, 's3fs');
    const path = join(base, 's3fs');
    mkdirSync(path);
    const password = join(base, 's3fs-password');
    writeFileSync(password, `${KEY}:${KEY}\n`, { mode: 0o600 });
    const store = `url=${server.url},use_path_request_style,passwd_file=${password}`;
    const cache = `use_cache=${join(base, 's3fs-cache')},stat_cache_expire=3600,allow_other`;
    const daemon = spawn('s3fs', ['bench', path, '-f', '-o', `${store},${cache}`], {
      stdio: 'ignore',
      env: environment(),
    });
    await mountedOrStopped(path, daemon, server);
    return { path, settle: () => quiet(server.directory), stop: () => stopBoth(path, daemon.pid, server) };
  },
};

async function mountedOrStopped(path: string, daemon: ChildProcess, server: S3Server): Promise<void> {
  try {
    await untilMounted(path, () => daemon.exitCode !== null);
  } catch (error) {
    daemon.kill('SIGKILL');
    server.stop();
    throw error;
  }
}

async function stopBoth(path: string, pid: number | undefined, server: S3Server): Promise<void> {
  await unmount(path, pid);
  server.stop();
}

/** Everything is uploaded when the server has had nothing new for a while. */
async function quiet(directory: string): Promise<number> {
  const end = performance.now() + SETTLE_MS_MAX;
  let before = '';
  let since = performance.now();
  while (performance.now() < end) {
    const now = contentOf(directory);
    if (now !== before) since = performance.now();
    if (performance.now() - since > QUIET_MS) return performance.now() - since;
    before = now;
    await sleep(100);
  }
  throw new Error(`uploads did not end in ${SETTLE_MS_MAX} ms`);
}

/** How many files there are below, and of how many bytes together. */
function contentOf(directory: string): string {
  let files = 0;
  let bytes = 0;
  for (const name of readdirSync(directory, { recursive: true, encoding: 'utf8' })) {
    files += 1;
    bytes += statSync(join(directory, name), { throwIfNoEntry: false })?.size ?? 0;
  }
  return `${files} ${bytes}`;
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.on('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => resolve(typeof address === 'object' && address ? address.port : 0));
    });
  });
}
