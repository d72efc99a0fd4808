// The mount options that are about the channel to the kernel, `-o io_uring=auto|on|off`, `-o io_uring_depth=N` and
// `-o halt_poll=auto|off`, apart from those of mount(8).
import { GatewayError } from './errors.js';
import type { Transport } from './mount-contract.js';
import type { IoUring } from './transports/native/transport.js';

const USES: readonly IoUring[] = ['auto', 'on', 'off'];
const HALT_POLLS = ['auto', 'off'] as const;
/** The measurement behind it: docs/benchmarks.md. */
const DEFAULT_USE: IoUring = 'off';
const DEPTH_MIN = 1;
const DEPTH_MAX = 256;

export interface ChannelOptions {
  readonly ioUring: IoUring;
  /** Requests that can be in our hands at once, for each CPU; absent: chosen by the channel. */
  readonly ioUringDepth?: number;
  /** A CPU may be kept from halting where that pays. */
  readonly haltPoll: boolean;
  /** The options that are left. */
  readonly mountOptions: readonly string[];
}

export function channelOptions(options: readonly string[], transport: Transport): ChannelOptions {
  let ioUring: IoUring = DEFAULT_USE;
  let ioUringDepth: number | undefined;
  let haltPoll = true;
  const mountOptions: string[] = [];
  for (const option of options) {
    const [key = '', value = ''] = option.split('=', 2);
    if (key === 'io_uring') ioUring = oneOf(key, value, USES);
    else if (key === 'io_uring_depth') ioUringDepth = depthOf(value);
    else if (key === 'halt_poll') haltPoll = oneOf(key, value, HALT_POLLS) === 'auto';
    else mountOptions.push(option);
  }
  if (transport !== 'native' && ioUring === 'on') {
    throw new GatewayError('EINVAL', `io_uring=on needs the native transport, not ${transport}`);
  }
  return { ioUring, ...(ioUringDepth === undefined ? {} : { ioUringDepth }), haltPoll, mountOptions };
}

function oneOf<Choice extends string>(key: string, value: string, choices: readonly Choice[]): Choice {
  const choice = choices.find((one) => one === value);
  if (choice === undefined) {
    throw new GatewayError('EINVAL', `${key}=${value}: expected one of ${choices.join(', ')}`);
  }
  return choice;
}

function depthOf(value: string): number {
  const depth = Number(value);
  if (Number.isInteger(depth) && depth >= DEPTH_MIN && depth <= DEPTH_MAX) return depth;
  throw new GatewayError('EINVAL', `io_uring_depth=${value}: expected ${DEPTH_MIN} to ${DEPTH_MAX}`);
}
