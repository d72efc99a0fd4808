// The contract on every engine, with one node and with three.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { RocksEngine } from '../../src/kv/rocks-engine.js';
import { namespaceContract, type Subject } from './contract.js';
import { memoryEngines } from './support.js';

async function embedded(nodes: number): Promise<Subject> {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-metadata-'));
  const engines: RocksEngine[] = [];
  for (let node = 0; node < nodes; node++)
    engines.push(await RocksEngine.open(join(directory, String(node))));
  return {
    engines,
    dispose: async () => {
      for (const engine of engines) await engine[Symbol.asyncDispose]();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

for (const nodes of [1, 3]) {
  namespaceContract(`memory engine, ${nodes} node(s)`, async () => {
    const engines = memoryEngines(nodes);
    return {
      engines,
      dispose: async () => {
        for (const engine of engines) await engine[Symbol.asyncDispose]();
      },
    };
  });
  namespaceContract(`embedded engine, ${nodes} node(s)`, () => embedded(nodes));
}
