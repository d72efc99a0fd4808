// The records of native/switch/rule_record.h: one function a record, one offset a field.

import type { IpAddress, PortRange } from './addresses.js';
import { ANY_PORT, type NativeMatch } from './match.js';

export const RULE_RECORD_BYTES = 208;
export const GROUP_RECORD_BYTES = 144;
export const NO_INDEX = 0xffff;
export const NO_PEER = 0xffff_ffff;

export const VERDICTS = ['normal', 'drop', 'output', 'punt'] as const;

export interface NativeNat {
  readonly kind: 'source' | 'destination';
  readonly address: IpAddress;
  readonly ports?: PortRange | undefined;
  readonly mac?: bigint | undefined;
}

/** One for all matches of a configured rule. */
export interface NativeEffect {
  readonly priority: number;
  readonly verdict: (typeof VERDICTS)[number];
  readonly engineSegments: boolean;
  readonly output?: number | undefined;
  readonly meter?: number | undefined;
  readonly mirror?: number | undefined;
  readonly mark?: number | undefined;
  readonly dscp?: number | undefined;
  readonly peer?: number | undefined;
  readonly nat?: NativeNat | undefined;
}

export interface NativeRule {
  readonly id: bigint;
  readonly match: NativeMatch;
  readonly effect: NativeEffect;
}

export interface NativeGroupRule {
  readonly direction: 'to-port' | 'from-port';
  readonly match: NativeMatch;
}

const HAS_MARK = 1;
const HAS_DSCP = 2;

function putRange(view: DataView, at: number, range: PortRange): void {
  view.setUint16(at, range.first, true);
  view.setUint16(at + 2, range.last, true);
}

function putWords(view: DataView, at: number, halves: Uint32Array): void {
  for (let i = 0; i < halves.length; i += 1) view.setUint32(at + 4 * i, halves[i]!, true);
}

export function encodeRules(rules: readonly NativeRule[]): Uint8Array {
  const bytes = new Uint8Array(rules.length * RULE_RECORD_BYTES);
  const view = new DataView(bytes.buffer);
  rules.forEach(({ id, match, effect }, index) => {
    const at = index * RULE_RECORD_BYTES;
    view.setBigUint64(at, id, true);
    putWords(view, at + 8, match.value);
    putWords(view, at + 72, match.mask);
    putRange(view, at + 136, match.sourcePorts);
    putRange(view, at + 140, match.destinationPorts);
    view.setUint32(at + 144, effect.priority, true);
    view.setUint8(at + 148, VERDICTS.indexOf(effect.verdict));
    view.setUint8(at + 149, effect.engineSegments ? 1 : 0);
    view.setUint8(at + 150, effect.nat === undefined ? 0 : effect.nat.kind === 'source' ? 1 : 2);
    view.setUint8(
      at + 151,
      (effect.mark === undefined ? 0 : HAS_MARK) | (effect.dscp === undefined ? 0 : HAS_DSCP),
    );
    view.setUint16(at + 152, effect.output ?? NO_INDEX, true);
    view.setUint16(at + 154, effect.meter ?? NO_INDEX, true);
    view.setUint16(at + 156, effect.mirror ?? NO_INDEX, true);
    view.setUint16(at + 158, effect.mark ?? 0, true);
    view.setUint8(at + 160, effect.dscp ?? 0);
    view.setUint32(at + 164, effect.peer ?? NO_PEER, true);
    putRange(view, at + 184, effect.nat?.ports ?? ANY_PORT);
    if (effect.nat === undefined) return;
    bytes.set(effect.nat.address.bytes, at + 168);
    view.setBigUint64(at + 192, effect.nat.mac ?? 0n, true);
  });
  return bytes;
}

export function encodeGroup(rules: readonly NativeGroupRule[]): Uint8Array {
  const bytes = new Uint8Array(rules.length * GROUP_RECORD_BYTES);
  const view = new DataView(bytes.buffer);
  rules.forEach((rule, index) => {
    const at = index * GROUP_RECORD_BYTES;
    putWords(view, at, rule.match.value);
    putWords(view, at + 64, rule.match.mask);
    putRange(view, at + 128, rule.match.sourcePorts);
    putRange(view, at + 132, rule.match.destinationPorts);
    view.setUint8(at + 136, rule.direction === 'to-port' ? 0 : 1);
  });
  return bytes;
}
