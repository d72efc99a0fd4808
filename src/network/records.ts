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

export interface NativeRule {
  readonly id: bigint;
  readonly priority: number;
  readonly match: NativeMatch;
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

function putWords(view: DataView, at: number, words: BigUint64Array): void {
  for (const [i, word] of words.entries()) view.setBigUint64(at + 8 * i, word, true);
}

export function encodeRules(rules: readonly NativeRule[]): Uint8Array {
  const bytes = new Uint8Array(rules.length * RULE_RECORD_BYTES);
  rules.forEach((rule, index) => {
    const view = new DataView(bytes.buffer, index * RULE_RECORD_BYTES, RULE_RECORD_BYTES);
    view.setBigUint64(0, rule.id, true);
    putWords(view, 8, rule.match.value);
    putWords(view, 72, rule.match.mask);
    putRange(view, 136, rule.match.sourcePorts);
    putRange(view, 140, rule.match.destinationPorts);
    view.setUint32(144, rule.priority, true);
    view.setUint8(148, VERDICTS.indexOf(rule.verdict));
    view.setUint8(149, rule.engineSegments ? 1 : 0);
    view.setUint8(150, rule.nat === undefined ? 0 : rule.nat.kind === 'source' ? 1 : 2);
    view.setUint8(151, (rule.mark === undefined ? 0 : HAS_MARK) | (rule.dscp === undefined ? 0 : HAS_DSCP));
    view.setUint16(152, rule.output ?? NO_INDEX, true);
    view.setUint16(154, rule.meter ?? NO_INDEX, true);
    view.setUint16(156, rule.mirror ?? NO_INDEX, true);
    view.setUint16(158, rule.mark ?? 0, true);
    view.setUint8(160, rule.dscp ?? 0);
    view.setUint32(164, rule.peer ?? NO_PEER, true);
    putRange(view, 184, rule.nat?.ports ?? ANY_PORT);
    if (rule.nat === undefined) return;
    bytes.set(rule.nat.address.bytes, index * RULE_RECORD_BYTES + 168);
    view.setBigUint64(192, rule.nat.mac ?? 0n, true);
  });
  return bytes;
}

export function encodeGroup(rules: readonly NativeGroupRule[]): Uint8Array {
  const bytes = new Uint8Array(rules.length * GROUP_RECORD_BYTES);
  rules.forEach((rule, index) => {
    const view = new DataView(bytes.buffer, index * GROUP_RECORD_BYTES, GROUP_RECORD_BYTES);
    putWords(view, 0, rule.match.value);
    putWords(view, 64, rule.match.mask);
    putRange(view, 128, rule.match.sourcePorts);
    putRange(view, 132, rule.match.destinationPorts);
    view.setUint8(136, rule.direction === 'to-port' ? 0 : 1);
  });
  return bytes;
}
