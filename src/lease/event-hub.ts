// Events of an agent, to any number of watchers. Each has a bounded queue; one that does not keep up is ended, not waited for.
import type { LeaseEvent, WatchFilter } from './contract.js';
import { LeaseError } from './errors.js';

export const QUEUE_MAX = 10_000;

interface Watcher {
  readonly filter: WatchFilter;
  readonly queue: LeaseEvent[];
  overrun: boolean;
  wake: () => void;
  readonly leave: () => void;
}

export class EventHub {
  readonly #watchers = new Set<Watcher>();
  readonly counters = { events: 0, overruns: 0 };

  get watchers(): number {
    return this.#watchers.size;
  }

  publish(event: LeaseEvent): void {
    if (this.#watchers.size === 0) return;
    this.counters.events += 1;
    for (const watcher of this.#watchers) {
      if (watcher.overrun || !matches(watcher.filter, event)) continue;
      if (watcher.queue.length === QUEUE_MAX) {
        watcher.overrun = true;
        this.counters.overruns += 1;
      } else watcher.queue.push(event);
      watcher.wake();
    }
  }

  /** Counts from the call, not from the first event that is asked for. */
  watch(filter: WatchFilter, signal: AbortSignal): AsyncIterable<LeaseEvent> {
    const leave = () => {
      this.#watchers.delete(watcher);
      // A signal may live longer, and would hold what is queued.
      signal.removeEventListener('abort', leave);
      watcher.wake();
    };
    const watcher: Watcher = { filter, queue: [], overrun: false, wake: () => undefined, leave };
    this.#watchers.add(watcher);
    signal.addEventListener('abort', leave);
    return this.#events(watcher, signal);
  }

  async *#events(watcher: Watcher, signal: AbortSignal): AsyncGenerator<LeaseEvent, void, void> {
    try {
      while (!signal.aborted) {
        const event = watcher.queue.shift();
        if (event !== undefined) yield event;
        else if (watcher.overrun)
          throw new LeaseError('UNAVAILABLE', 'this watcher fell too far behind; watch again');
        else
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
      }
    } finally {
      watcher.leave();
    }
  }
}

function matches(filter: WatchFilter, event: LeaseEvent): boolean {
  const { service, consumer, producer } = filter;
  if (service !== undefined && service !== event.service) return false;
  if (consumer !== undefined && consumer !== event.consumer) return false;
  return producer === undefined || producer === event.producer;
}
