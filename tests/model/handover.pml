/*
 * One number of a worker, and the processes that have it one after another: each runs one task, whose result goes
 * through the number's stream, says that it leaves, and ends; or is killed. Two threads of the parent see to that.
 *
 * models  repair.c: wp_worker_ended bury survive clear_stream lose_attempts wp_worker_failed
 * models  members.c: reserve wp_watch_worker weirpool_worker_vacate weirpool_worker_revoke weirpool_worker_abandon
 * models  worker.c: wp_worker_open weirpool_announce; collect.c: wp_see_to_workers report_departure
 * models  take.c: wp_mark_done_slots take_done_slots try_slot drain receive_head note_received wp_take_all_done
 * models  stream.c: wp_stream_clear
 *
 * Each task runs once and ends once: delivered with its own result, or lost with the process that ran it. Who is buried
 * is dead, and has not been buried before. Never do two processes act under the number.
 *
 * holds
 * holds   DIES                   a process is killed anywhere
 * holds   ABANDONS               the first process is given up: it is turned away, or ended if it has attached
 * fails   NO_CHECK               assertion           who is told of an end does not look whose it is
 * fails   FORGET_LATE            assertion           a process that ended is known until it is buried
 * fails   VACATE_EARLY           assertion           the number is free before its process is buried
 * fails   VACANT_LATE            invalid end state   it is made vacant after it was given on
 * fails   DIES NO_MARK           invalid end state   the repair does not set the bit of a task that was done
 * fails   DIES NO_LAST_TAKE      invalid end state   the stream is cleared before what was done is taken
 * fails   DIES NO_CLEAR          assertion           what is left of a lost result is found before the next
 * fails   DIES NO_WAIT           invalid end state   the stream is cleared while another thread drains it
 * fails   DIES TRUST             invalid end state   a process that has a task is believed to have left as planned
 * fails   ABANDONS NO_BADGE      assertion           who comes late attaches in the place of the next process
 * fails   ABANDONS NO_SWAP       assertion           who attaches looks whether it may, and says so afterwards
 * fails   ABANDONS NO_END        assertion           the number is given on although its process has attached
 */
#define TASKS 2
#define PROCESSES 4
#define PIECES 2 /* of a result */
#define NONE 255

mtype = { VACANT, STARTING, ATTACHED, UP, LEAVES, QUEUED, RUNNING, DONE, FREE };

/* ---- shared memory ---- */

mtype standing = VACANT;
byte badge;                /* with STARTING: who may attach */
mtype tag[TASKS] = QUEUED;
bool done_bit[TASKS];
byte head;
byte ring[TASKS * PIECES + PIECES]; /* each piece says whose it is */
byte written;

/* ---- what the parent knows ---- */

bool lock;
bool reserved, counted, has_left;
byte process = NONE; /* that is watched */
byte cursor, receiving = NONE, received;
bool whole[TASKS];
bool to_drain, draining;
byte quiet;
byte ended; /* tasks */

/* ---- what is true ---- */

byte started;             /* processes */
bool dead[PROCESSES];     /* as their pidfds say */
bool inside[PROCESSES];   /* has attached */
bool buried[PROCESSES];
byte current = NONE;      /* who has the number */
byte victim = NONE;
byte acting;              /* processes under the number */
byte runner[TASKS];
byte ends[TASKS];

inline acquire()
{
    atomic { !lock -> lock = true }
}

inline release()
{
    lock = false
}

/* ---- a process ---- */

#ifdef NO_BADGE
#define MAY_ATTACH(who) (standing == STARTING)
#else
#define MAY_ATTACH(who) (standing == STARTING && badge == who)
#endif

inline attach(who)
{
    standing = ATTACHED;
    inside[who] = true;
    acts = true;
    acting++;
    assert(acting == 1)
}

proctype worker(byte me)
{
    byte t = NONE;
    bool acts;
    {
        if
#ifdef NO_SWAP
        :: MAY_ATTACH(me) -> atomic { attach(me) }
#else
        :: atomic { MAY_ATTACH(me) -> attach(me) }
#endif
            standing = UP;
end_idle:   atomic { head < TASKS -> t = head; assert(tag[t] == QUEUED); tag[t] = RUNNING; runner[t] = me; head++ }
            ring[written] = t;
            written++;
            ring[written] = t;
            written++;
            if
            :: atomic { tag[t] == RUNNING && runner[t] == me -> tag[t] = DONE }
                done_bit[t] = true;
                standing = LEAVES
            :: else -> assert(false) /* nobody takes a task from one that lives */
            fi
        :: else /* it is turned away */
        fi
    } unless { victim == me }
    d_step { acting = acting - acts; dead[me] = true }
}

/* ---- the parent's threads; with the lock ---- */

inline end(which)
{
    d_step {
        tag[which] = FREE;
        assert(ends[which] == 0);
        ends[which]++;
        ended++
    }
}

inline try_slot(which)
{
    if
    :: atomic { tag[which] == DONE && whole[which] -> end(which) }
    :: atomic { tag[which] == DONE && !whole[which] -> to_drain = true }
    :: else
    fi
}

inline take_done_slots()
{
    i = 0;
    do
    :: i == TASKS -> break
    :: i < TASKS && done_bit[i] -> done_bit[i] = false; try_slot(i); i++
    :: i < TASKS && !done_bit[i] -> i++
    od;
    i = 0
}

/* One turn; nobody else drains. The body is copied without the lock. */
inline drain()
{
    if
    :: cursor == written -> to_drain = false
    :: cursor < written && receiving == NONE ->
        d_step { receiving = ring[cursor]; received = 1; cursor++; assert(tag[receiving] == RUNNING || tag[receiving] == DONE) }
    :: cursor < written && receiving != NONE ->
        draining = true;
        release();
        d_step { assert(ring[cursor] == receiving); cursor++ }
        acquire();
        d_step { draining = false; received++ }
        if
        :: received == PIECES -> d_step { i = receiving; whole[i] = true; receiving = NONE }
            try_slot(i);
            i = 0
        :: else
        fi
    fi
}

inline take()
{
    take_done_slots();
    if
    :: to_drain && !draining && quiet == 0 -> drain()
    :: else
    fi
}

inline take_all_done()
{
    quiet++;
    take_done_slots();
    do
#ifndef NO_WAIT
    :: draining -> release(); acquire()
#else
    :: draining -> break
#endif
    :: !draining && cursor < written -> drain()
    :: !draining && cursor == written -> break
    od;
    quiet--
}

inline bury(who)
{
    d_step {
        assert(who != NONE && (dead[who] || !inside[who]) && !buried[who]);
        buried[who] = true;
        counted = false
    }
#ifdef VACATE_EARLY
    reserved = false;
#endif
#ifndef NO_MARK
    i = 0;
    do
    :: i == TASKS -> break
    :: i < TASKS -> done_bit[i] = done_bit[i] || tag[i] == DONE; i++
    od;
    i = 0;
#endif
#ifndef NO_LAST_TAKE
    take_all_done();
#endif
    release(); /* as when the stream of another worker is drained */
    acquire();
    atomic {
        how = standing;
#ifndef VACANT_LATE
        standing = VACANT
#endif
    }
}

inline lose(who)
{
    i = 0;
    do
    :: i == TASKS -> break
    :: i < TASKS && tag[i] == RUNNING -> assert(runner[i] == who); end(i); i++
    :: i < TASKS && tag[i] != RUNNING -> i++
    od;
    i = 0
}

inline mourn(who)
{
#ifndef NO_CLEAR
    d_step { receiving = NONE; received = 0; cursor = written }
#endif
    lose(who)
}

#define has_task (tag[0] == RUNNING || tag[1] == RUNNING)

#ifdef TRUST
#define PLANNED (how == UP || how == LEAVES)
#else
#define PLANNED (how == LEAVES && !has_task && receiving == NONE)
#endif

#ifdef NO_CHECK
#define IS_KNOWN (reserved && process != NONE)
#else
#define IS_KNOWN (reserved && process != NONE && dead[process])
#endif

inline worker_ended()
{
    if
    :: IS_KNOWN ->
        who = process;
#ifndef FORGET_LATE
        process = NONE;
#endif
        bury(who);
#ifdef FORGET_LATE
        process = NONE;
#endif
        if
        :: PLANNED
        :: else -> mourn(who)
        fi;
        has_left = true
    :: else
    fi
}

/* One whose process could not be watched. */
inline worker_failed(who)
{
    if
    :: counted -> bury(who);
        if
        :: has_task -> mourn(who)
        :: else
        fi
    :: else
    fi;
    reserved = false
}

/* ---- without the lock ---- */

inline start()
{
    acquire();
    if
    :: reserved -> release()
    :: else ->
        d_step { reserved = true; counted = true; standing = STARTING; badge = started }
        release();
        atomic { current = started; started++; run worker(current) }
#ifdef ABANDONS
        if
        :: current == 0 ->
            acquire();
            atomic {
                revoked = standing == STARTING && badge == 0;
                if
                :: revoked -> standing = LEAVES
                :: else
                fi
            }
            release();
#ifndef NO_END
            if
            :: revoked /* it may still come, and is turned away */
            :: else -> victim = 0; dead[0]
            fi;
#endif
            acquire();
            worker_failed(0);
            release()
        :: else ->
#endif
            acquire();
            process = current;
            release()
#ifdef ABANDONS
        fi
#endif
    fi
}

/* Thread 0 is told who has left; both start processes. */
proctype parent(byte me)
{
    byte i, who;
    mtype how;
    bool revoked;
    do
    :: ended == TASKS -> break
    :: ended < TASKS && (done_bit[0] || done_bit[1] || (to_drain && !draining && quiet == 0)) -> acquire(); take(); release()
    :: ended < TASKS && process != NONE && dead[process] -> acquire(); worker_ended(); release();
#ifdef VACANT_LATE
        standing = VACANT
#endif
    :: ended < TASKS && me == 0 && has_left -> acquire(); d_step { has_left = false; reserved = false } release()
    :: ended < TASKS && !reserved && started < PROCESSES -> start()
    od
}

init
{
    atomic {
        run parent(0);
        run parent(1)
    }
#ifdef DIES
    if
    :: victim = 0
    :: victim = 1
    fi
#endif
}
