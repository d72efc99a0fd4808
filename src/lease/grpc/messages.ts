// Between messages and the types of the contract: proto3 leaves out a field that has its default value.
import type { Registration } from '../contract.js';
import type { InheritedLease, ProducerRecord } from '../coordination.js';

/** `message` with its absent fields filled in. */
export function filled<T extends object>(message: T | undefined, defaults: Partial<T>): T {
  return { ...defaults, ...message } as T;
}

export interface WireRecord extends Omit<ProducerRecord, keyof Registration | 'weight' | 'inherited'> {
  readonly registration: Registration;
  readonly inherited: readonly InheritedLease[];
}

export function recordToWire(record: ProducerRecord): WireRecord {
  const { service, producer, mode, address, capacity, weight, ...rest } = record;
  return { registration: { service, producer, mode, address, capacity, weight }, ...rest };
}

export function recordFromWire(wire: WireRecord): ProducerRecord {
  const { registration, inherited, ...rest } = wire;
  const known = filled(registration, { service: '', producer: '', mode: 'shared', address: '', capacity: 0 });
  return {
    ...known,
    weight: known.weight ?? known.capacity,
    ...filled(rest, { owner: '', epoch: 0, quietMs: 0, generation: 0 }),
    inherited: (inherited ?? []).map((lease) =>
      filled(lease, { leaseId: '', consumer: '', fencingToken: 0, revoked: false, ttlMs: 0 }),
    ),
  };
}
