// What an agent must still know after it was killed: which exclusive leases it has given. Written before the grant is answered.
//
//   journal/lease/SERVICE\0PRODUCER   the lease (one per producer: it is exclusive)
//   journal/trust                     {boot, incarnation}: it held every lease while the agent ran as this, under this boot id
//
// A commit survives kill -9 at once, a power loss only later: after another boot the journal may lack its end, and the agent waits
// out its longest lease before it grants. So it does when the agent has been another incarnation since, on another store. Only after
// that time is the journal trusted again, so that a second start in it waits too. Deadlines are not kept: after a restart every lease
// counts as just granted.
import { readFileSync } from 'node:fs';
import type { KvEngine } from '../kv/engine.js';
import type { ProducerName } from './contract.js';
import type { InheritedLease, OwnedName } from './coordination.js';
import { nameOf } from './kv-coordination.js';

const LEASES = 'journal/lease/';
const TRUST = Buffer.from('journal/trust');

/** `epoch`: the one in which the agent owned the producer; in a later one the coordination knows better. */
export interface JournalledLease extends OwnedName, InheritedLease {}

export interface JournalContent {
  readonly leases: readonly JournalledLease[];
  /** The last incarnation of the agent whose leases are all in it; absent: none, or it ran before the machine last started. */
  readonly incarnation?: number;
}

interface Trust {
  readonly boot: string;
  readonly incarnation: number;
}

export class LeaseJournal {
  constructor(
    private readonly engine: KvEngine,
    private readonly bootId = systemBootId(),
  ) {}

  /** What an earlier start left. */
  open(): Promise<JournalContent> {
    return this.engine.transact(async (txn) => {
      const start = Buffer.from(LEASES);
      const found = await txn.range({ start, end: Buffer.concat([start, Buffer.of(0xff)]) });
      const leases = found.map(({ value }) => JSON.parse(value.toString('utf8')) as JournalledLease);
      const trust = await txn.get(TRUST);
      if (trust === undefined) return { leases };
      const { boot, incarnation } = JSON.parse(trust.toString('utf8')) as Trust;
      return boot === this.bootId ? { leases, incarnation } : { leases };
    });
  }

  /** From now on it holds every lease that may live, as long as this incarnation runs. */
  trust(incarnation: number): Promise<void> {
    const trust: Trust = { boot: this.bootId, incarnation };
    return this.engine.transact((txn) => txn.put(TRUST, Buffer.from(JSON.stringify(trust), 'utf8')));
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
