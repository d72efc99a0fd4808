// What an agent must still know after it was killed: which exclusive leases it has given. Written before the grant is answered.
//
//   journal/lease/SERVICE\0PRODUCER   the lease (one per producer: it is exclusive)
//   journal/boot                      the boot id of the last start
//
// A commit survives kill -9 at once, a power loss only later: after another boot the journal may lack its end, and the agent waits
// out its longest lease before it grants. Deadlines are not kept: after a restart every lease counts as just granted.
import { readFileSync } from 'node:fs';
import type { KvEngine } from '../kv/engine.js';
import type { ProducerName } from './contract.js';
import type { InheritedLease } from './coordination.js';
import { nameOf } from './kv-coordination.js';

const LEASES = 'journal/lease/';
const BOOT = Buffer.from('journal/boot');

export interface JournalledLease extends ProducerName, InheritedLease {}

export interface JournalContent {
  readonly leases: readonly JournalledLease[];
  /** False: leases may have been granted that are not in it. */
  readonly complete: boolean;
}

export class LeaseJournal {
  constructor(
    private readonly engine: KvEngine,
    private readonly bootId = systemBootId(),
  ) {}

  /** What an earlier start left. */
  async open(): Promise<JournalContent> {
    const content = await this.engine.transact(async (txn) => {
      const start = Buffer.from(LEASES);
      const found = await txn.range({ start, end: Buffer.concat([start, Buffer.of(0xff)]) });
      const boot = await txn.get(BOOT);
      txn.put(BOOT, Buffer.from(this.bootId));
      return {
        leases: found.map(({ value }) => JSON.parse(value.toString('utf8')) as JournalledLease),
        complete: boot?.toString() === this.bootId,
      };
    });
    await this.engine.sync();
    return content;
  }

  write(lease: JournalledLease): Promise<void> {
    return this.engine.transact((txn) => {
      txn.put(leaseKey(lease), Buffer.from(JSON.stringify(lease), 'utf8'));
    });
  }

  remove(name: ProducerName): Promise<void> {
    return this.engine.transact((txn) => txn.delete(leaseKey(name)));
  }
}

function leaseKey(name: ProducerName): Buffer {
  return Buffer.from(LEASES + nameOf(name), 'utf8');
}

function systemBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
