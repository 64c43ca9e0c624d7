/*
 * The bound on tasks that have not started: a producer waits, as the parent's helper, until a worker claims.
 * Nobody looks once a second. The worker goes on with its task for ever, so that nothing else can ring.
 *
 * models  worker.c: tell_start ring; table.c: wp_table_claim
 * models  starts.c: wp_note_starts wp_ask_for_starts; queue.c: wp_flow; roles.c: wp_address has_news wait_as_helper
 *
 * The producer is admitted once the task before its own was claimed.
 *
 * holds
 * holds   DIES                 the worker is killed anywhere: its task has ended
 * fails   ASK_LATE             invalid end state   starts are counted before workers are asked to say
 * fails   CLEAR_LATE           invalid end state   what workers said is cleared after they are counted
 * fails   SAY_EARLY            invalid end state   a worker looks whether it is to say so before it claims
 * fails   NO_NEWS              invalid end state   the helper sleeps without looking again once it may be rung
 * fails   NO_RING              invalid end state   a worker says so and rings nobody
 */
#define NOBODY 0
#define HELPER 2

mtype = { QUEUED, RUNNING, FREE };

mtype tag = QUEUED;
bool want_starts, started, gone, dies;
byte addressee = NOBODY;
byte bell;

proctype worker()
{
    bool wanted;
    {
#ifdef SAY_EARLY
        wanted = want_starts;
        tag = RUNNING;
#else
        tag = RUNNING;
        wanted = want_starts;
#endif
        if
        :: wanted ->
            started = true;
#ifndef NO_RING
            if
            :: addressee == HELPER -> bell++
            :: addressee != HELPER
            fi
#endif
        :: else
        fi;
end_runs: false
    } unless { dies }
    gone = true
}

inline note_starts()
{
#ifndef CLEAR_LATE
    if
    :: started -> started = false
    :: else
    fi;
#endif
    admitted = (tag != QUEUED);
#ifdef CLEAR_LATE
    started = false
#endif
}

inline flow()
{
#ifdef ASK_LATE
    note_starts();
    want_starts = true;
#else
    want_starts = true;
    note_starts();
#endif
}

proctype producer()
{
    byte seen;
    bool admitted;
    do
    :: admitted -> break
    :: else ->
        seen = bell;
        flow();
        if
        :: admitted
        :: else ->
            addressee = HELPER;
#ifndef NO_NEWS
            if
            :: started || bell != seen
            :: else ->
#endif
                if
                :: bell != seen
                :: gone -> atomic { gone = false; tag = (tag == RUNNING -> FREE : tag) }
                    if
                    :: tag == QUEUED -> admitted = true /* nobody else would claim it here */
                    :: else
                    fi
                fi
#ifndef NO_NEWS
            fi
#endif
            ;
            addressee = NOBODY
        fi
    od
}

init
{
    atomic {
        run worker();
        run producer()
    }
#ifdef DIES
    dies = true
#endif
}
