// NPP is not in every CUDA installation, and Jittor takes nothing of it but these.
#pragma once
#define NPP_MIN_32U 0
#define NPP_MAX_32U 4294967295U
#define NPP_MIN_32S (-NPP_MAX_32S - 1)
#define NPP_MAX_32S 2147483647
#define NPP_MIN_64U 0
#define NPP_MAX_64U 18446744073709551615ULL
#define NPP_MIN_64S (-NPP_MAX_64S - 1)
#define NPP_MAX_64S 9223372036854775807LL
