/*
 * Sleeping and waking of workers, without any look once a second that could mask a wake-up that was lost.
 *
 * models  park.c: wp_park leave_parking arrive wp_start_search wp_stop_search wake wp_wake_one wp_unpark_dead
 * models  table.c: wp_table_publish wp_table_has_work; worker.c: claim_now wait_for_work; repair.c: bury
 *
 * Each task lasts for ever, so each needs a worker of its own: all of them have to start, whoever sleeps, searches or
 * wakes when. That somebody is on its way counts for a time only: at any look at `waking` it may have run out.
 *
 * holds
 * holds   SEARCHES                    a worker may search for a moment before it sleeps
 * holds   DIES                        a worker is killed anywhere; its repair wakes another
 * holds   STOPS                       a worker is stopped anywhere for ever; the parent looks when nothing else happens
 * fails   NO_SECOND_LOOK              invalid end state   a worker sleeps without looking again once it is marked
 * fails   NO_CHAIN                    invalid end state   who found work wakes nobody else
 * fails   NO_ARRIVAL                  invalid end state   who was woken, or searched, stays "on its way"
 * fails   NO_NEXT                     invalid end state   a wake-up that woke nobody is left at that
 * fails   NO_RESCAN                   invalid end state   and is not tried again with those who lay down meanwhile
 * fails   DIES NO_REPAIR_LOOK         invalid end state   the repair of a dead worker wakes nobody
 * fails   DIES NO_REPAIR_MARK         invalid end state   nor withdraws who it said is on its way
 * fails   STOPS NO_AGE                invalid end state   being on one's way has no limit
 */
#define WORKERS 3
#if defined(DIES) || defined(STOPS)
#define TASKS (WORKERS - 1)
#else
#define TASKS WORKERS
#endif
#define PARENT WORKERS

byte head;                 /* of the queue */
byte tail = 1;             /* the first task is there for the worker that is awake */
byte waking;               /* 0, or who was woken by whom; in C the time makes each such word another one */
#if defined(DIES) || defined(STOPS) || defined(SEARCHES)
#define AWAKE 1            /* workers at first; two are too much to look through with what else happens there */
byte bits = 6;             /* parked[] of the header */
#else
#define AWAKE 2
byte bits = 4;
#endif
bool parked[WORKERS];      /* of the records */
bool in_futex[WORKERS];
byte victim = 255;         /* who dies or stops */
bool dead[WORKERS];
bool has_stopped, buried;
bool late;                 /* this look comes a second after anything else happened */
bool holds[WORKERS];       /* a task */

#define all_others_hold (holds[0] + holds[1] + holds[2] - holds[victim] == WORKERS - 1)

#define word(waker, woken) ((waker) * 4 + (woken) + 1)
#define names(w, worker) ((w) != 0 && ((w) - 1) % 4 == (worker))
#define bit(worker) (1 << (worker))

inline futex_wake(worker)
{
    woke = in_futex[worker];
    in_futex[worker] = false
}

inline arrive(me)
{
#ifdef NO_ARRIVAL
    skip
#else
    atomic {
        if
        :: names(waking, me) -> waking = 0
        :: else
        fi
    }
#endif
}

inline leave_parking(me)
{
    parked[me] = false;
    bits = bits & ~bit(me);
    arrive(me)
}

/* Somebody's word that the sequence has just seen: nobody's, or one that is too old, does not count. */
#ifdef NO_AGE
#define RUN_OUT (seen == 0)
#else
#define RUN_OUT true
#endif

/* Each atomic sequence is one access to shared memory and what follows from it locally. */
inline mark(waker)
{
    atomic {
        if
        :: waking == seen -> waking = word(waker, w); won = true
        :: else -> seen = waking; won = false;
            if
            :: seen != 0 && !late -> over = true
            :: RUN_OUT
            fi
        fi
    }
}

inline unmark(waker)
{
    atomic {
        undone = true;
        if
        :: waking == word(waker, w) -> waking = 0; seen = 0
        :: else -> seen = waking
        fi
#ifdef NO_NEXT
        ; over = true
#endif
    }
}

inline wake(waker)
{
    atomic { woke = parked[w] };
    if
    :: !woke -> atomic { futex_wake(w); over = woke }
    :: else ->
        mark(waker);
        if
        :: !won
        :: else ->
            atomic { woke = parked[w]; parked[w] = false }
            atomic {
                if
                :: woke -> futex_wake(w)
                :: else
                fi;
                over = woke
            }
            if
            :: over
            :: else -> unmark(waker)
            fi
        fi
    fi
}

inline wake_one(waker)
{
    atomic {
        seen = waking;
        over = false;
        if
        :: seen != 0 && !late -> over = true
        :: RUN_OUT
        fi;
        undone = true
    }
    do
    :: over || !undone -> break
    :: else ->
        atomic { undone = false; asleep = bits }
        do
        :: over || asleep == 0 -> break
        :: else ->
            atomic { w = (asleep & 1 -> 0 : (asleep & 2 -> 1 : 2)); asleep = asleep & (asleep - 1) }
            wake(waker)
        od
#ifdef NO_RESCAN
        ; undone = false
#endif
    od;
    atomic { seen = 0; asleep = 0; w = 0; won = false; woke = false; over = false; undone = false }
}

inline look(waker)
{
    if
    :: head < tail -> wake_one(waker)
    :: else
    fi
}

proctype worker(byte me)
{
    byte seen, asleep, w;
    bool won, woke, over, undone;
    if
    :: me >= AWAKE -> goto asleep_already
    :: else
    fi;
#if defined(DIES) || defined(STOPS)
    {
#endif
        do
        :: atomic { head < tail -> head++; holds[me] = true }
#ifndef NO_CHAIN
            look(me);
#endif
end_busy:   false
        :: head == tail ->
#ifdef SEARCHES
            if
            :: /* for a moment */
                atomic {
                    if
                    :: waking == 0 -> waking = word(me, me)
                    :: else
                    fi
                }
                arrive(me)
            :: skip
            fi
#endif
            parked[me] = true;
            bits = bits | bit(me);
#ifdef NO_SECOND_LOOK
            if :: true ->
#else
            if
            :: head < tail
            :: else ->
#endif
                atomic { in_futex[me] = parked[me] }
asleep_already: skip;
end_asleep:     !in_futex[me]
            fi
            leave_parking(me)
        od
#if defined(DIES) || defined(STOPS)
    } unless { victim == me }
#endif
#ifdef STOPS
    has_stopped = true;
end_stopped: false
#elif defined(DIES)
    d_step { in_futex[me] = false; dead[me] = true }
#endif
}

inline bury(gone)
{
    atomic { dead[gone] = false; buried = true }
    parked[gone] = false;
    bits = bits & ~bit(gone);
#ifdef NO_REPAIR_MARK
    arrive(gone);
#else
    waking = 0; /* also one that it was about to wake */
#endif
#ifndef NO_REPAIR_LOOK
    look(PARENT)
#endif
}

proctype parent()
{
    byte seen, asleep, w, looks;
    bool won, woke, over, undone;
    do
    :: tail < TASKS -> tail++; wake_one(PARENT)
    :: victim != 255 && dead[victim] -> bury(victim)
#ifdef DIES
    :: buried && all_others_hold && tail == TASKS -> break
#endif
#ifdef STOPS
    :: timeout && has_stopped && looks < TASKS && tail == TASKS && !all_others_hold ->
        looks++; late = true; look(PARENT); late = false
    :: has_stopped && all_others_hold && tail == TASKS -> break
#endif
    :: head == TASKS -> break
    od
}

proctype fate()
{
    if
    :: victim = 0
    :: victim = 1
    :: victim = 2
    fi
}

init
{
    atomic {
        parked[1] = (AWAKE == 1);
        in_futex[1] = (AWAKE == 1);
        parked[2] = true;
        in_futex[2] = true;
        run worker(0);
        run worker(1);
        run worker(2);
        run parent();
#if defined(DIES) || defined(STOPS)
        run fate()
#endif
    }
}
