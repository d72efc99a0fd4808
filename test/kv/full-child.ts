// Run by full-disk.test.ts in a process of its own, on a file system that is soon full or under a limit of file sizes: goes on
// with the history in argv[2] until it fails, and says what the engine does then. argv[3]: the free space it must leave;
// argv[4]: a file whose removal makes room.

import { randomBytes } from 'node:crypto';
import { rmSync, writeSync } from 'node:fs';
import { KvError } from '../../src/kv/engine.js';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { lastStep, step } from './history-child.js';

const say = (line: string) => writeSync(1, `${line}\n`);
// Incompressible, or the disk would never fill.
const value = randomBytes(3000);

async function stepUntilFailure(engine: RocksEngine): Promise<string> {
  for (;;) {
    try {
      await step(engine, value);
    } catch (error) {
      if (error instanceof KvError) return error.code;
      throw error;
    }
  }
}

const [, , directory = '', freeBytesMin, ballast] = process.argv;
const options = { rotateBytes: 1 << 20, freeBytesMin: Number(freeBytesMin) };
const engine = await RocksEngine.open(directory, options);
say(await stepUntilFailure(engine));
say(await stepUntilFailure(engine));
const reached = await lastStep(engine);
say(`readable ${reached > 0}`);
let more = 0;
if (ballast !== undefined) {
  rmSync(ballast);
  for (; more < 300; more += 1) await step(engine, value);
  await engine.sync();
}
const close = await engine[Symbol.asyncDispose]().then(
  () => 'fine',
  (error: KvError) => error.code,
);
say(`closed ${close}`);
await using again = await RocksEngine.open(directory, options);
const last = await lastStep(again);
// A write that failed was never acknowledged; what of it reached the log may count or not.
say(`whole ${last === reached + more || (more === 0 && last === reached + 1)}`);
