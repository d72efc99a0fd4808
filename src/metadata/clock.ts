// Wall-clock time with nanosecond fields. Date.now() alone ticks in milliseconds, so that two operations in a row would
// carry the same ctime; the monotonic clock fills in the rest between ticks, and never runs away from the wall clock.
import type { Timespec } from './contract.js';

export type Clock = () => Timespec;

/** How far (ms) the interpolated time may stand from the system clock before it is taken from there again. */
const DRIFT_MS_MAX = 2;

export function systemClock(): Clock {
  let offset = Date.now() - performance.now();
  return () => {
    let now = offset + performance.now();
    const wall = Date.now();
    if (now - wall > DRIFT_MS_MAX || wall - now > DRIFT_MS_MAX) {
      offset += wall - now;
      now = wall;
    }
    const sec = Math.floor(now / 1000);
    return { sec, nsec: Math.floor((now - sec * 1000) * 1e6) };
  };
}
