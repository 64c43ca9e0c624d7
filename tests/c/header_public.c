/* weirpool.h needs no other header before it, and no feature macro. */
#include "weirpool.h"

int main(void)
{
    return weirpool_deadline(0) > WEIRPOOL_NOW ? 0 : 1;
}
