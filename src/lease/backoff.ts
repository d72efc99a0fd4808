// How long to wait before asking again: what the agent said and up to a quarter more, so that who was refused together does not come
// back together; else doubling with full jitter (AWS, "Exponential backoff and jitter").
import type { Random } from '../telemetry/random.js';
import { LeaseError } from './errors.js';

const FIRST_MS = 50;
const LAST_MS = 5_000;
const HINT_JITTER = 0.25;

export function backoffMs(error: unknown, attempt: number, random: Random): number {
  if (error instanceof LeaseError && error.retryAfterMs !== undefined)
    return Math.ceil(error.retryAfterMs * (1 + HINT_JITTER * random.uniform()));
  const most = Math.min(LAST_MS, FIRST_MS * 2 ** Math.min(attempt, 20));
  return Math.ceil(most * (0.1 + 0.9 * random.uniform()));
}
