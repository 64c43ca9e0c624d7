/*
 * The slot table: two slots, more tasks than slots, so that positions wrap around and skip; tasks may be taken back.
 *
 * models  table.c: wp_table_reserve wp_table_publish wp_table_claim wp_table_cancel wp_table_finish wp_table_free
 * models  take.c: try_slot; repair.c: bury end_slots; check.c: find_fault_in_state
 *
 * Each task ends exactly once and runs at most once, whoever is killed or stopped between any two steps.
 *
 * holds
 * holds   DIES                 a worker is killed anywhere
 * holds   STOPS                a worker is stopped anywhere for ever
 * fails   STOPS NO_HELP        invalid end state   only who won moves the head on
 * fails   DIES NO_HELP         invalid end state   the same, where it was killed
 * fails   NO_POSITION          assertion           a claim compares the tag alone
 * fails   DIES NO_OWNER        invalid end state   a claim does not say whose it is
 * fails   BLIND_CANCEL         assertion           a task is taken back without comparing
 * fails   TAIL_FIRST           assertion           the tail is published before the slot
 * fails   NO_SKIP              invalid end state   a slot that is busy is used again
 */
#define SLOTS 2
#define TASKS 3
#define NONE 255

mtype = { FREE, QUEUED, RUNNING, DONE };

byte head, tail;
mtype tag[SLOTS] = FREE; /* with position and owner: one word */
byte position[SLOTS] = NONE;
byte owner[SLOTS];
byte payload[SLOTS];
byte runs[TASKS];
byte victim = NONE;
bool gone; /* the victim, if it is dead and not buried */
bool has_stopped;

proctype worker(byte me)
{
    byte h = 0;
    bool won;
    {
end_idle:
        do
        :: atomic { head < tail -> h = head }
            if
            :: h >= tail
            :: else ->
                atomic {
#ifdef NO_POSITION
                    won = tag[h % SLOTS] == QUEUED;
#else
                    won = tag[h % SLOTS] == QUEUED && position[h % SLOTS] == h;
#endif
                    if
                    :: won -> tag[h % SLOTS] = RUNNING;
#ifndef NO_OWNER
                        owner[h % SLOTS] = me
#endif
                    :: else
                    fi
                }
                atomic {
                    if
#ifdef NO_HELP
                    :: head == h && won -> head++
#else
                    :: head == h -> assert(tag[h % SLOTS] != QUEUED || position[h % SLOTS] != h); head++
#endif
                    :: else
                    fi
                }
                if
                :: won ->
                    assert(position[h % SLOTS] == h);
                    atomic { runs[payload[h % SLOTS]]++; assert(runs[payload[h % SLOTS]] == 1) }
                    atomic {
                        if
                        :: tag[h % SLOTS] == RUNNING && position[h % SLOTS] == h -> tag[h % SLOTS] = DONE
                        :: else -> assert(false) /* nobody else ends what runs */
                        fi
                    }
                :: else
#ifdef NO_HELP
                    ; head != h /* it would try for ever */
#endif
                fi
            fi;
            atomic { h = 0; won = false }
        od
    } unless { victim == me }
#ifdef STOPS
    has_stopped = true;
end_stopped: false
#else
    gone = true
#endif
}

/* What the parent may do with slot i. What it saw before it cancels may have changed by then. */
#define TAKE(i) \
    :: atomic { task[i] != NONE && tag[i] == DONE && position[i] == at[task[i]] -> \
        ends[task[i]]++; ended++; assert(ends[task[i]] == 1) } \
        tag[i] = FREE; \
        task[i] = NONE \
    :: atomic { task[i] != NONE && !cancelled && tag[i] == QUEUED -> cancelled = true } \
        atomic { \
            if \
            :: MAY_CANCEL(i) -> \
                tag[i] = FREE; ends[task[i]]++; ended++; \
                assert(ends[task[i]] == 1 && runs[task[i]] == 0); task[i] = NONE \
            :: else \
            fi \
        } \
    :: atomic { gone && task[i] != NONE && tag[i] == RUNNING && owner[i] == victim -> \
        tag[i] = FREE; ends[task[i]]++; ended++; task[i] = NONE }

#ifdef BLIND_CANCEL
#define MAY_CANCEL(i) true
#else
#define MAY_CANCEL(i) (tag[i] == QUEUED && position[i] == at[task[i]])
#endif

#define HELD(i) (task[i] != NONE && tag[i] == RUNNING && owner[i] == victim)

proctype parent()
{
    byte task[SLOTS] = NONE; /* tasks[] of the table */
    byte at[TASKS];
    byte ends[TASKS];
    byte next, ended, p, i;
    bool cancelled;
    do
    :: next < TASKS && (task[0] == NONE || task[1] == NONE) ->
        p = tail;
#ifndef NO_SKIP
        do
        :: task[p % SLOTS] != NONE -> p++
        :: else -> break
        od;
#endif
        atomic { task[p % SLOTS] = next; at[next] = p }
#ifdef TAIL_FIRST
        tail = p + 1;
#endif
        payload[p % SLOTS] = next;
        atomic { tag[p % SLOTS] = QUEUED; position[p % SLOTS] = p; owner[p % SLOTS] = 0 }
#ifndef TAIL_FIRST
        tail = p + 1;
#endif
        atomic { next++; p = 0 }
    TAKE(0)
    TAKE(1)
    :: ended == TASKS -> break
    :: has_stopped && ended == TASKS - 1 && next == TASKS && (HELD(0) || HELD(1)) -> break
    od;
    assert(head <= tail)
}

init
{
    atomic {
        run worker(1);
        run worker(2);
        run parent();
    }
#if defined(DIES) || defined(STOPS)
    victim = 1
#endif
}
