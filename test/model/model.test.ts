// The idle protocol, checked in every interleaving by Spin, with a store buffer for each thread (store_buffers.pml): it
// holds, and with any one of its steps deleted it does not. docs/idle.md says what each model claims.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../../bindings/load.js';

const TIMEOUT_MS = 180_000;
const DEPTH_MAX = 100_000;

/** `safety`: assertions and states without a successor. `liveness`: the model's ltl formula under weak fairness. */
type Claim = 'safety' | 'liveness';

interface Verdict {
  readonly errors: number;
  readonly states: number;
  readonly complaint: string;
}

function check(model: string, claim: Claim, defines: readonly string[] = []): Verdict {
  const directory = mkdtempSync(join(tmpdir(), 'penstock-model-'));
  try {
    const flags = defines.map((name) => `-D${name}`);
    const source = join(packageRoot(), 'test/model', `${model}.pml`);
    execFileSync('spin', ['-a', ...flags, source], { cwd: directory, stdio: 'pipe' });
    const kind = claim === 'safety' ? ['-DSAFETY', '-DNOCLAIM'] : ['-DNFAIR=4'];
    // A counterexample is found at once: then compiling is what takes long.
    const optimise = defines.length > 0 ? '-O0' : '-O1';
    execFileSync('cc', [optimise, '-w', ...kind, '-o', 'pan', 'pan.c'], { cwd: directory, stdio: 'pipe' });
    const argv = [...(claim === 'safety' ? [] : ['-a', '-f']), `-m${DEPTH_MAX}`];
    const { stdout, error } = spawnSync('./pan', argv, {
      cwd: directory,
      encoding: 'utf8',
      timeout: TIMEOUT_MS / 2,
    });
    if (error) throw error;
    if (/max search depth too small/.test(stdout)) throw new Error(`the search was cut short:\n${stdout}`);
    return {
      errors: Number(/errors: (\d+)/.exec(stdout)![1]),
      states: Number(/(\d+) states, stored/.exec(stdout)![1]),
      complaint: /^pan:1: (.*) \(at depth/m.exec(stdout)?.[1] ?? '',
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

describe('announce, look again, block', () => {
  test('no state in which a worker sleeps over an item', { timeout: TIMEOUT_MS }, () => {
    const { errors, states } = check('park', 'safety');
    expect(errors).toBe(0);
    expect(states).toBeGreaterThan(100_000);
  });

  test('every item is taken some time', { timeout: TIMEOUT_MS }, () => {
    expect(check('park', 'liveness', ['ITEMS=1']).errors).toBe(0);
  });

  test.each([
    ["the worker's fence", 'NO_WORKER_FENCE'],
    ["the producer's fence", 'NO_PRODUCER_FENCE'],
    ['the second look', 'NO_SECOND_LOOK'],
  ])('without %s a wake-up is lost', { timeout: TIMEOUT_MS }, (_, define) => {
    const { errors, complaint } = check('park', 'safety', [define]);
    expect(errors).toBe(1);
    expect(complaint).toBe('invalid end state');
  });
});

describe('admitted and finished numbers', () => {
  test('no sleep with work upstream, and nothing missed', { timeout: TIMEOUT_MS }, () => {
    const { errors, states } = check('upstream', 'safety');
    expect(errors).toBe(0);
    expect(states).toBeGreaterThan(50_000);
  });

  test('with everything done, drops included, the last stage sleeps', { timeout: TIMEOUT_MS }, () => {
    expect(check('upstream', 'liveness', ['PACKETS=2']).errors).toBe(0);
  });

  test('without the signal it sleeps with work upstream', { timeout: TIMEOUT_MS }, () => {
    const { errors, complaint } = check('upstream', 'safety', ['NO_SIGNAL']);
    expect(errors).toBe(1);
    expect(complaint).toMatch(/upstream_then/);
  });

  test('a number published before its packets sends it to sleep too early', { timeout: TIMEOUT_MS }, () => {
    const { errors, complaint } = check('upstream', 'safety', ['FINISHED_FIRST']);
    expect(errors).toBe(1);
    expect(complaint).toMatch(/pushed_of|upstream_then/);
  });

  test('a drop that does not count as finished is waited for for ever', { timeout: TIMEOUT_MS }, () => {
    const { errors, complaint } = check('upstream', 'liveness', ['PACKETS=2', 'DROPS_UNFINISHED']);
    expect(errors).toBe(1);
    expect(complaint).toBe('acceptance cycle');
  });
});
