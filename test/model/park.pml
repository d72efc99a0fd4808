/* The parker (native/base/parker.h): two producers with a ring each, one worker that sleeps whenever it finds nothing.
 *
 * Claims:  no wake-up is lost      every run ends with all items taken; a worker that sleeps over an item, with everybody
 *                                  else done, is a state without a successor, which the checker reports
 *          every item is served    `served`: under weak fairness each item is taken some time
 *          one write a sleep       the assertions: the eventfd's writers are never more than the announcements
 *
 * Deletions that must make it fail:  NO_WORKER_FENCE  NO_PRODUCER_FENCE  NO_SECOND_LOOK
 */
#define THREADS 3
#define CELLS 3
#ifndef ITEMS
#define ITEMS 2
#endif

#define STATE 2 /* cells 0 and 1 are the rings' tails */
#define AWAKE 0
#define SLEEPING 1
#define WAKING 2

#include "store_buffers.pml"

byte event;         /* the eventfd; system calls act on memory at once but do not drain the caller's buffer */
byte taken;         /* ghosts, for the claims */
byte announcements;
byte writes;

/* Step a to c of the drawing in parker.h. */
proctype producer(byte me) {
  byte item, seen;
  bool won;
  do
  :: item < ITEMS ->
       item++;
       store(me, me, item);
#ifndef NO_PRODUCER_FENCE
       fence(me);
#endif
       load(me, STATE, seen);
       if
       :: seen == SLEEPING ->
            exchange(me, STATE, SLEEPING, WAKING, won);
            if
            :: won -> atomic { event++; writes++; assert(writes <= announcements) }
            :: else
            fi
       :: else
       fi;
       seen = 0;
       won = false
  :: else -> break
  od
}

inline look(into) {
  load(2, 0, tail);
  into = (tail > head[0]);
  load(2, 1, tail);
  into = into || (tail > head[1]);
  tail = 0
}

/* Steps 1 to 5. Cell 2's writer in the worker's part is thread 2. */
proctype worker() {
  byte head[2];
  byte tail;
  bool found;
  do
  :: taken < 2 * ITEMS ->
       load(2, 0, tail);
       atomic { taken = taken + tail - head[0]; head[0] = tail };
       load(2, 1, tail);
       atomic { taken = taken + tail - head[1]; head[1] = tail };
       look(found);
       if
       :: !found && taken < 2 * ITEMS ->
            atomic { store(2, STATE, SLEEPING); announcements++ };
#ifndef NO_WORKER_FENCE
            fence(2);
#endif
#ifndef NO_SECOND_LOOK
            look(found);
#endif
            if
            :: found -> store(2, STATE, AWAKE)
            :: else ->
                 /* epoll_wait: blocks until the eventfd is readable */
                 atomic { event > 0 -> event = 0 };
                 fence(2);
                 d_step { memory[STATE] = AWAKE }
            fi
       :: else
       fi;
       found = false
  :: else -> break
  od;
  assert(taken == 2 * ITEMS)
}

init {
  atomic {
    run drain(0);
    run drain(1);
    run drain(2);
    run producer(0);
    run producer(1);
    run worker()
  }
}

ltl served { <> (taken == 2 * ITEMS) }
