/* Threads that see memory as x86 does (total store order): a store goes into the thread's own buffer, first in first out,
 * and reaches memory some time later; a load sees the thread's own newest buffered store, else memory. A fence, and every
 * locked instruction, waits until the own buffer is empty.
 *
 *   thread t:  STORE ──> buffer[t] ──(drain, any time later)──> memory ──> LOAD of anybody
 *
 * The models include this file; THREADS and CELLS are theirs.
 */
#define BUFFER 3

typedef Store { byte cell; byte value };
typedef Buffer { Store entry[BUFFER]; byte count };

byte memory[CELLS];
Buffer buffer[THREADS];

/* Blocks while the buffer is full, as the processor does. */
inline store(thread, at, what) {
  d_step {
    (buffer[thread].count < BUFFER) ->
    buffer[thread].entry[buffer[thread].count].cell = at;
    buffer[thread].entry[buffer[thread].count].value = what;
    buffer[thread].count++
  }
}

inline load(thread, at, into) {
  d_step {
    into = memory[at];
    if
    :: buffer[thread].count > 0 && buffer[thread].entry[0].cell == at -> into = buffer[thread].entry[0].value
    :: else
    fi;
    if
    :: buffer[thread].count > 1 && buffer[thread].entry[1].cell == at -> into = buffer[thread].entry[1].value
    :: else
    fi;
    if
    :: buffer[thread].count > 2 && buffer[thread].entry[2].cell == at -> into = buffer[thread].entry[2].value
    :: else
    fi
  }
}

inline fence(thread) { (buffer[thread].count == 0) }

/* A locked compare-and-exchange: `done` tells whether the cell held `expected`. */
inline exchange(thread, at, expected, desired, done) {
  d_step {
    (buffer[thread].count == 0) ->
    done = (memory[at] == expected);
    if
    :: done -> memory[at] = desired
    :: else
    fi
  }
}

/* One for each thread, started by the model: its oldest store reaches memory. */
proctype drain(byte me) {
  byte i;
end:
  do
  :: d_step {
       (buffer[me].count > 0) ->
       memory[buffer[me].entry[0].cell] = buffer[me].entry[0].value;
       i = 0;
       do
       :: i + 1 < buffer[me].count ->
            buffer[me].entry[i].cell = buffer[me].entry[i + 1].cell;
            buffer[me].entry[i].value = buffer[me].entry[i + 1].value;
            i++
       :: else -> break
       od;
       buffer[me].count--;
       buffer[me].entry[buffer[me].count].cell = 0;
       buffer[me].entry[buffer[me].count].value = 0;
       i = 0
     }
  od
}
