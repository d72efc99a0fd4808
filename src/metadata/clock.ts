// Wall-clock time with nanosecond fields. The system's wall clock alone ticks in milliseconds here, so that two operations in a
// row would carry the same ctime; the monotonic clock fills in the rest between ticks, and never runs away from the wall.
import { type Clock, systemClock } from '../telemetry/clock.js';
import type { Timespec } from './contract.js';

export type Now = () => Timespec;

/** How far (ms) the interpolated time may stand from the wall clock before it is taken from there again. */
const DRIFT_MS_MAX = 2;

export function wallTime(clock: Clock = systemClock): Now {
  let offset = clock.wallMs() - clock.monotonicMs();
  return () => {
    let now = offset + clock.monotonicMs();
    const wall = clock.wallMs();
    if (now - wall > DRIFT_MS_MAX || wall - now > DRIFT_MS_MAX) {
      offset += wall - now;
      now = wall;
    }
    const sec = Math.floor(now / 1000);
    return { sec, nsec: Math.floor((now - sec * 1000) * 1e6) };
  };
}
