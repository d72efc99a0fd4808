// How long to wait before asking again: what the agent said, else doubling with full jitter (AWS, "Exponential backoff and jitter").
import type { Random } from '../telemetry/random.js';
import { LeaseError } from './errors.js';

const FIRST_MS = 50;
const LAST_MS = 5_000;

export function backoffMs(error: unknown, attempt: number, random: Random): number {
  if (error instanceof LeaseError && error.retryAfterMs !== undefined) return error.retryAfterMs;
  const most = Math.min(LAST_MS, FIRST_MS * 2 ** Math.min(attempt, 20));
  return Math.ceil(most * (0.1 + 0.9 * random.uniform()));
}
