// The mount options that are about the channel to the kernel, `-o io_uring=auto|on|off` and `-o io_uring_depth=N`, apart from
// those of mount(8).
import { GatewayError } from './errors.js';
import type { Transport } from './mount-contract.js';
import type { IoUring } from './transports/native/transport.js';

const USES: readonly IoUring[] = ['auto', 'on', 'off'];
/** The measurement behind it: docs/benchmarks.md. */
const DEFAULT_USE: IoUring = 'off';
const DEPTH_MIN = 1;
const DEPTH_MAX = 256;

export interface ChannelOptions {
  readonly ioUring: IoUring;
  /** Requests that can be in our hands at once, for each CPU; absent: chosen by the channel. */
  readonly ioUringDepth?: number;
  /** The options that are left. */
  readonly mountOptions: readonly string[];
}

export function channelOptions(options: readonly string[], transport: Transport): ChannelOptions {
  let ioUring: IoUring = DEFAULT_USE;
  let ioUringDepth: number | undefined;
  const mountOptions: string[] = [];
  for (const option of options) {
    const [key = '', value = ''] = option.split('=', 2);
    if (key === 'io_uring') ioUring = useOf(value);
    else if (key === 'io_uring_depth') ioUringDepth = depthOf(value);
    else mountOptions.push(option);
  }
  if (transport !== 'native' && ioUring === 'on') {
    throw new GatewayError('EINVAL', `io_uring=on needs the native transport, not ${transport}`);
  }
  return { ioUring, ...(ioUringDepth === undefined ? {} : { ioUringDepth }), mountOptions };
}

function useOf(value: string): IoUring {
  const use = USES.find((one) => one === value);
  if (use === undefined)
    throw new GatewayError('EINVAL', `io_uring=${value}: expected one of ${USES.join(', ')}`);
  return use;
}

function depthOf(value: string): number {
  const depth = Number(value);
  if (Number.isInteger(depth) && depth >= DEPTH_MIN && depth <= DEPTH_MAX) return depth;
  throw new GatewayError('EINVAL', `io_uring_depth=${value}: expected ${DEPTH_MIN} to ${DEPTH_MAX}`);
}
