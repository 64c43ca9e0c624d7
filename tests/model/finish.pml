/*
 * The end of a task: result, DONE, done bit, ring; a collector that takes and sleeps; and the repair of a dead worker.
 * Nobody looks once a second.
 *
 * models  worker.c: wp_deliver wp_complete ring; table.c: wp_table_finish; roles.c: wp_address
 * models  take.c: wp_mark_done_slots take_done_slots try_slot; collect.c: doze set_asleep; repair.c: bury end_slots
 *
 * Each task is delivered with its whole result, or lost with its worker; never both, and never neither.
 *
 * holds
 * holds   DIES                 a worker is killed anywhere
 * fails   DIES NO_MARK         invalid end state   the repair does not set the bit of a task that was done
 * fails   NO_SECOND_TAKE       invalid end state   the collector sleeps without taking again once it may be rung
 * fails   RING_FIRST           invalid end state   a worker looks whom to ring before it sets its bit
 * fails   BIT_FIRST            invalid end state   the bit is set before DONE
 * fails   DIES DONE_FIRST      assertion           DONE is said before the result is there
 * fails   DIES LOST_FIRST      assertion           the repair takes for lost what was done
 */
#define TASKS 2
#define NOBODY 0
#define COLLECTOR 1

mtype = { FREE, RUNNING, DONE };

mtype tag[TASKS] = RUNNING; /* each by a worker of its own */
bool result[TASKS];
bool done_bit[TASKS];
byte addressee = NOBODY;
bool bell;
byte victim = 255;
bool gone;
byte ends[TASKS];
byte ended;

proctype worker(byte me)
{
    byte whom;
    {
#ifdef RING_FIRST
        whom = addressee;
#endif
#ifdef BIT_FIRST
        done_bit[me] = true;
#endif
#ifdef DONE_FIRST
        tag[me] = DONE;
        result[me] = true;
#else
        result[me] = true;
        tag[me] = DONE;
#endif
#ifndef BIT_FIRST
        done_bit[me] = true;
#endif
#ifndef RING_FIRST
        whom = addressee;
#endif
        if
        :: whom == COLLECTOR -> bell = true
        :: else
        fi
end_idle: false
    } unless { victim == me }
    gone = true
}

inline end(i)
{
    tag[i] = FREE;
    ends[i]++;
    ended++;
    assert(ends[i] == 1)
}

inline take_slot(i)
{
    atomic { seen = done_bit[i]; done_bit[i] = false }
    if
    :: atomic { seen && tag[i] == DONE -> assert(result[i]); end(i) }
    :: atomic { !seen || tag[i] != DONE -> skip }
    fi;
    seen = false
}

inline take()
{
    take_slot(0);
    take_slot(1)
}

inline lose()
{
    atomic {
        if
        :: tag[victim] == RUNNING -> end(victim)
#ifdef LOST_FIRST
        :: tag[victim] == DONE -> end(victim); assert(!result[victim])
#endif
        :: else
        fi
    }
}

inline bury()
{
    gone = false;
#ifdef LOST_FIRST
    lose();
#endif
#ifndef NO_MARK
    atomic {
        if
        :: tag[victim] == DONE -> done_bit[victim] = true
        :: else
        fi
    }
#endif
    take();
    lose()
}

proctype collector()
{
    bool seen;
    do
    :: ended == TASKS -> break
    :: else ->
        addressee = NOBODY;
        take();
        addressee = COLLECTOR;
#ifndef NO_SECOND_TAKE
        take();
#endif
        if
        :: ended == TASKS
        :: bell -> bell = false
        :: gone -> bury()
        fi
    od
}

init
{
    atomic {
        run worker(0);
        run worker(1);
        run collector()
    }
#ifdef DIES
    victim = 0
#endif
}
