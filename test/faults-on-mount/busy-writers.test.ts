// A volume on which somebody always writes can be drained, and is not unmounted under whoever writes.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Fixture, unavailable } from './fixture.js';

const WRITER = `
  const fs = require('node:fs');
  const files = Array.from({ length: 20 }, (_, i) => fs.openSync('file' + i, 'w'));
  process.stdout.write('begun');
  for (let turn = 0; ; turn += 1) fs.writeSync(files[turn % files.length], Buffer.alloc(20_000, turn), 0, 20_000, 0);
`;

describe.skipIf(unavailable)('while others go on writing', { timeout: 180_000 }, () => {
  const fixture = new Fixture();
  let writer: ReturnType<typeof spawn> | undefined;

  afterEach(() => {
    writer?.kill('SIGKILL');
  });

  it('a drain ends, an unmount says who is in its way, and afterwards nothing is missing in the store', async () => {
    const volume = await fixture.start();
    writer = spawn(process.execPath, ['-e', WRITER], {
      cwd: volume.path,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(writer.stdout!, 'data');
    for (let turn = 0; turn < 3; turn += 1) await volume.drain();
    await expect(volume.command('umount', volume.path)).rejects.toThrow(/busy|in use/);
    writer.kill('SIGKILL');
    await once(writer, 'exit');
    const written = await Promise.all(
      Array.from({ length: 20 }, (_, i) => readFile(join(volume.path, `file${i}`), 'latin1')),
    );
    // No drain before the unmount but its own.
    await volume.umount();
    volume.deleteCache();
    await volume.mount();
    for (const [i, content] of written.entries())
      expect(await readFile(join(volume.path, `file${i}`), 'latin1')).toBe(content);
  });
});
