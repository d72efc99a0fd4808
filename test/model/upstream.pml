/* The admitted and finished numbers (native/pipeline/progress.h): three stages on three workers; the middle one drops some.
 *
 *   source  admits, then pushes ──ring 1──> middle  takes, forwards or drops, ──ring 2──> last  decides whether to sleep
 *                                                   then publishes finished
 *
 * Claims:  no sleep with work upstream   when a packet was visible in ring 1, or in the middle's hands, before the last
 *                                        stage looked and still is when it has decided, it has not decided to sleep
 *          nothing is missed             when it decides to sleep, having seen all finished, ring 2 is looked at again
 *                                        and holds what the middle passed on
 *          a drop is no wait for ever    `rests`: when all is over the last stage sleeps
 *
 * Deletions that must make it fail:  NO_SIGNAL          never looks at the numbers: sleeps with work upstream
 *                                    DROPS_UNFINISHED   a dropped packet is not finished: never rests
 *                                    FINISHED_FIRST     published before the push: sleeps over a packet on its way
 */
#define THREADS 3
#define CELLS 4
#ifndef PACKETS
#define PACKETS 3
#endif

#define ADMITTED 0
#define RING1 1
#define RING2 2
#define FINISHED 3

#include "store_buffers.pml"

byte passed; /* ghosts: the middle has pushed or dropped so many; how many of the first n it pushed */
byte pushed_of[PACKETS + 1];
bool resting;

proctype source() {
  byte number;
  do
  :: number < PACKETS ->
       number++;
       store(0, ADMITTED, number);
       store(0, RING1, number)
  :: else -> break
  od
}

proctype middle() {
  byte tail, head, sent;
  bool forwards;
  do
  :: head < PACKETS ->
       load(1, RING1, tail);
       if
       :: tail > head ->
            head++;
            if
            :: forwards = true
            :: forwards = false
            fi;
#ifdef FINISHED_FIRST
            store(1, FINISHED, head);
#endif
            if
            :: forwards -> sent++; store(1, RING2, sent)
            :: else
            fi;
            atomic { pushed_of[head] = sent; passed = head };
#ifdef DROPS_UNFINISHED
            if
            :: forwards -> store(1, FINISHED, head)
            :: else
            fi;
#else
#ifndef FINISHED_FIRST
            store(1, FINISHED, head);
#endif
#endif
            forwards = false
       :: else
       fi;
       tail = 0
  :: else -> break
  od
}

proctype last() {
  byte tail, head, admitted, finished, upstream_then;
  bool expects, all_finished;
end:
  do
  :: /* a round */
     resting = false;
     load(2, RING2, tail);
     head = tail;
     /* which packets were upstream, for everybody to see, before it looks: in ring 1 or in the middle's hands */
     upstream_then = (memory[RING1] > passed -> memory[RING1] : 0);
     expects = false;
#ifndef NO_SIGNAL
     load(2, ADMITTED, admitted);
     load(2, FINISHED, finished);
     expects = (admitted > finished);
     all_finished = (admitted > 0 && !expects);
#endif
     if
     :: expects
     :: else ->
          assert(upstream_then == 0 || passed >= upstream_then);
          load(2, RING2, tail); /* the second look */
          if
          :: tail > head
          :: else ->
               /* having seen `finished`, it has seen everything that these packets became */
               assert(!all_finished || finished == 0 || pushed_of[finished] <= tail);
               resting = true;
               /* sleeps until something may have changed */
               if
               :: memory[RING2] > head
               :: memory[ADMITTED] > admitted || memory[FINISHED] > finished
               :: passed == PACKETS && buffer[0].count == 0 && buffer[1].count == 0 && memory[RING2] <= head -> break
               fi
          fi
     fi;
     upstream_then = 0; all_finished = false; tail = 0
  od
}

init {
  atomic {
    run drain(0);
    run drain(1);
    run drain(2);
    run source();
    run middle();
    run last()
  }
}

ltl rests { <> [] resting }
