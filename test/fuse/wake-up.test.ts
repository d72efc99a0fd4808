// When JavaScript's thread is signalled, and when it need not be.
import { createServer } from 'node:net';
import { expect, test } from 'vitest';
import { mountMemoryFs } from '../support/memory-mount.js';

test('what arrives while JavaScript is at work is found there, and signals nobody', async () => {
  await using mount = await mountMemoryFs();
  mount.fs.getXattr = async () => {
    await null; // the ring has been emptied when the work begins
    const until = performance.now() + 2;
    while (performance.now() < until);
    return Buffer.from('value');
  };
  await mount.python("open('file', 'w'); os.setxattr('file', 'user.x', b'')");
  const { upcallWakes: before = 0 } = mount.transport.stats();
  // Of two that ask at once one always waits while the other is answered.
  await mount.python(`
import threading
def ask():
  for i in range(150): os.getxattr('file', 'user.x')
threads = [threading.Thread(target=ask) for i in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()`);
  const { upcallWakes = 0 } = mount.transport.stats();
  expect(upcallWakes - before).toBeLessThan(200);
});

test('a thread that waits for something else than the mount is signalled', async () => {
  await using mount = await mountMemoryFs();
  let ask: () => void = () => undefined;
  const asked = new Promise<void>((resolve) => {
    ask = resolve;
  });
  mount.fs.getXattr = async () => {
    await asked;
    return Buffer.from('value');
  };
  await mount.python("open('file', 'w'); os.setxattr('file', 'user.x', b'')");
  // The first question is in hand and waits for the second, which finds a sleeping thread.
  const waiting = mount.python("print(os.getxattr('file', 'user.x'))");
  await expect.poll(() => mount.transport.stats().pending).toBe(1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await mount.shell('test -e absent || true');
  ask();
  expect(await waiting).toBe("b'value'");
});

test('a thread that is about to wait for something new is signalled', async () => {
  await using mount = await mountMemoryFs();
  const servers: ReturnType<typeof createServer>[] = [];
  mount.fs.getXattr = async () => {
    // The loop takes a socket up when it waits next.
    servers.push(createServer().listen(0, '127.0.0.1'));
    return Buffer.from('value');
  };
  await mount.python("open('file', 'w'); os.setxattr('file', 'user.x', b'')");
  const waited = await mount.python(`
import time
worst = 0
for i in range(10):
  time.sleep(0.05)
  began = time.monotonic()
  os.getxattr('file', 'user.x')
  os.listxattr('file')
  worst = max(worst, time.monotonic() - began)
print(worst)`);
  for (const server of servers) server.close();
  expect(Number(waited)).toBeLessThan(0.5);
});
