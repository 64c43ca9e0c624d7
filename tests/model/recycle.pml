/*
 * Sleeping and waking of workers that end, and of others that take their numbers. Nobody looks once a second.
 *
 * models  park.c: wp_park leave_parking arrive wake wp_wake_one wp_unpark_dead wp_look; worker.c: claim_now
 * models  repair.c: wp_worker_ended wp_worker_failed bury; members.c: wp_is_worker_wanted reserve weirpool_worker_vacate
 *
 * The first tasks are short, and who ran one leaves. The others last for ever, so that each needs a worker. However many
 * there are, all have to start, whoever leaves, dies, sleeps or wakes when: no task waits while a worker sleeps and
 * nobody is on its way. As in the model of parking, being on one's way counts for a time only.
 *
 * holds                            a number is given on when tasks exceed workers, as in Python
 * holds   DIES                     a worker is killed anywhere, also one that took another's number
 * holds   FILLS                    every number is given on, as in C
 * holds   FILLS DIES
 * fails   NO_SUCCESSOR             invalid end state   no number is given on
 * fails   FILLS UNPARK_LATE        invalid end state   a number is given on as one that may sleep, and cleared then
 * fails   DIES NO_LOOK             invalid end state   the repair wakes nobody
 * fails   DIES LOOK_FIRST          invalid end state   it does while the dead one still counts as being on its way
 * fails   DIES NO_MARK             invalid end state   whom the dead one was about to wake counts as being on its way
 */
#define NUMBERS 2
#if defined(DIES) && defined(FILLS)
#define SHORT 1            /* tasks whose workers leave */
#else
#define SHORT 2
#endif
#ifdef DIES
#define TASKS (SHORT + NUMBERS - 1) /* one worker is left over, to be woken in the place of another */
#else
#define TASKS (SHORT + NUMBERS)
#endif
#define PROCESSES (TASKS + 2)
#define PARENT PROCESSES
#define NONE 255

byte head;                 /* of the queue */
byte tail;
byte tasks;                /* how many there will be */
byte waking;               /* 0, or who was woken by whom; in C the time makes each such word another one */
byte bits = 3;             /* parked[] of the header */
bool parked[NUMBERS];      /* of the records */
byte asleep_in[NUMBERS] = NONE; /* in the futex of a record: which process */
byte victim = NONE;
bool ended[NUMBERS];       /* the process of this number, and that was not seen to */
bool vacant[NUMBERS];
bool holds[NUMBERS];       /* a task */
byte live = NUMBERS;
byte past;                 /* tasks that have ended, as the parent knows */
byte started = NUMBERS;    /* processes */
byte unlooked = NONE;      /* the number of one that is being buried: the lock was released meanwhile */

#define word(waker, woken) ((waker) * 2 + (woken) + 1)
#define names(w, number) ((w) != 0 && ((w) - 1) % 2 == (number))
#define bit(number) (1 << (number))
#ifdef FILLS
#define is_wanted true
#else
#define is_wanted (tail - past > live)
#endif

inline futex_wake(number)
{
    woke = asleep_in[number] != NONE;
    asleep_in[number] = NONE
}

inline arrive(number)
{
    atomic {
        if
        :: names(waking, number) -> waking = 0
        :: else
        fi
    }
}

/* Each atomic sequence is one access to shared memory and what follows from it locally. */
inline mark(waker)
{
    atomic {
        if
        :: waking == seen -> waking = word(waker, w); won = true
        :: else -> seen = waking; won = false;
            if
            :: seen != 0 -> over = true
            :: true /* too old, or nobody's */
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
        :: seen != 0 -> over = true
        :: true
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
            atomic { w = (asleep & 1 -> 0 : 1); asleep = asleep & (asleep - 1) }
            wake(waker)
        od
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

/* Process `me` with a number. */
proctype worker(byte me; byte number)
{
    byte seen, asleep, w, task;
    bool won, woke, over, undone;
    {
        if
        :: me < NUMBERS -> goto asleep_already
        :: else
        fi;
        do
        :: atomic { head < tail -> task = head; head++; holds[number] = true }
            look(me);
            if
            :: task < SHORT -> break
            :: else
            fi;
end_busy:   false
        :: head == tail ->
            parked[number] = true;
            bits = bits | bit(number);
            if
            :: head < tail
            :: else ->
                atomic {
                    if
                    :: parked[number] -> asleep_in[number] = me
                    :: else
                    fi
                }
asleep_already: skip;
end_asleep:     asleep_in[number] != me
            fi;
            parked[number] = false;
            bits = bits & ~bit(number);
            arrive(number)
        od
    } unless { victim == me }
    atomic {
        if
        :: asleep_in[number] == me -> asleep_in[number] = NONE
        :: else
        fi;
        ended[number] = true
    }
}

inline unpark_dead(number)
{
    parked[number] = false;
    bits = bits & ~bit(number);
#ifdef NO_MARK
    arrive(number)
#else
    waking = 0 /* also one that it was about to wake */
#endif
}

inline bury(number)
{
    atomic {
        ended[number] = false;
        live--;
        past = past + holds[number];
        holds[number] = false;
        unlooked = number
    }
#ifdef LOOK_FIRST
    look(PARENT);
#endif
#ifndef UNPARK_LATE
    unpark_dead(number)
#endif
}

inline see_off()
{
#if !defined(NO_LOOK) && !defined(LOOK_FIRST)
    look(PARENT);
#endif
    atomic { vacant[unlooked] = true; unlooked = NONE }
}

inline replace(number)
{
    atomic { vacant[number] = false; live++; run worker(started, number); started++ }
#ifdef UNPARK_LATE
    unpark_dead(number)
#endif
}

proctype parent()
{
    byte seen, asleep, w;
    bool won, woke, over, undone;
    do
    :: head == tasks -> break
    :: head < tasks && tail < tasks -> tail++; wake_one(PARENT)
    :: head < tasks && unlooked == NONE && ended[0] -> bury(0)
    :: head < tasks && unlooked == NONE && ended[1] -> bury(1)
    :: head < tasks && unlooked != NONE -> see_off()
#ifndef NO_SUCCESSOR
    :: head < tasks && vacant[0] && is_wanted -> replace(0)
    :: head < tasks && vacant[1] && is_wanted -> replace(1)
#endif
    od
}

init
{
    atomic {
        select (tasks : 1 .. TASKS);
        parked[0] = true;
        asleep_in[0] = 0;
        parked[1] = true;
        asleep_in[1] = 1;
        run worker(0, 0);
        run worker(1, 1);
        run parent()
    }
#ifdef DIES
    if
    :: victim = 0
    :: victim = 1
    :: victim = 2
    fi
#endif
}
