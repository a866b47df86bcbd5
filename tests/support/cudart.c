/* A CUDA runtime library on host memory, with a clock of its own: each run of an engine takes 1.5 ms. */
#include <stdlib.h>
#include <string.h>
typedef void *P;
static double now; static int capturing, lost;
#define LIVE if (lost) return lost;
/* For tests: an illegal memory access, after which every call fails for good. */
void fakeLose(int yes) { lost = yes ? 700 : 0; }
/* The run of an engine outside of a graph. */
void fakeRun(void) { now += capturing ? 0 : 1.5; }
int cudaGetDeviceCount(int *n) {
#ifdef NO_GPU
  return 100;
#endif
  *n = 1; return 0; }
int cudaSetDevice(int d) { return d ? 101 : 0; }
int cudaSetDeviceFlags(unsigned f) { return f > 1; }
int cudaDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 9 : a == 76 ? 0 : -1; return d; }
int cudaGetDeviceProperties(P p, int d) { memset(p, 'x', 1032); strcpy(p, "Fake GPU"); return d; }
int cudaRuntimeGetVersion(int *v) { *v = 12090; return 0; }
int cudaDriverGetVersion(int *v) { *v = 12040; return 0; }
int cudaGetLastError(void) { return 0; }
int cudaDeviceSynchronize(void) { LIVE return 0; }
int cudaMalloc(P *p, size_t n) { LIVE if (n > (1ull << 40)) return 2; *p = malloc(n); return 0; }
int cudaFree(P p) { LIVE free(p); return 0; }
int cudaMemcpy(P d, P s, size_t n, int k) { LIVE memcpy(d, s, n); return k == 1 ? 0 : 21; }
int cudaMemcpyAsync(P d, P s, size_t n, int k, P st) { LIVE memcpy(d, s, n); return st && (k == 1 || k == 2) ? 0 : 21; }
int cudaStreamCreateWithFlags(P *s, unsigned f) { LIVE *s = malloc(8); return f != 1; }
int cudaStreamDestroy(P s) { LIVE free(s); return 0; }
int cudaStreamSynchronize(P s) { LIVE return 0; }
int cudaStreamBeginCapture(P s, int m) { LIVE if (capturing) return 900; capturing = 1; return m != 1; }
int cudaStreamEndCapture(P s, P *g) { LIVE *g = capturing ? malloc(8) : 0; capturing = 0; return 0; }
int cudaGraphDestroy(P g) { LIVE free(g); return 0; }
int cudaGraphExecDestroy(P e) { LIVE free(e); return 0; }
#ifdef OLD
int cudaGraphInstantiate(P *e, P g, P node, char *log, size_t n) { LIVE *e = malloc(8); return !g || node || log || n; }
#else
int cudaGraphInstantiateWithFlags(P *e, P g, unsigned long long f) { LIVE *e = malloc(8); return !g || f; }
#endif
int cudaGraphLaunch(P e, P s) { LIVE now += 1.5; return e && s ? 0 : 21; }
int cudaEventCreateWithFlags(P *e, unsigned f) { LIVE *e = calloc(1, 8); return f; }
int cudaEventDestroy(P e) { LIVE free(e); return 0; }
int cudaEventRecord(P e, P s) { LIVE *(double *)e = now; return 0; }
int cudaEventSynchronize(P e) { LIVE return 0; }
int cudaEventElapsedTime(float *ms, P a, P b) { LIVE *ms = (float)(*(double *)b - *(double *)a); return 0; }
const char *cudaGetErrorName(int c) {
  return c == 2 ? "cudaErrorMemoryAllocation" : c == 100 ? "cudaErrorNoDevice" :
    c == 700 ? "cudaErrorIllegalAddress" : "cudaErrorOther"; }
const char *cudaGetErrorString(int c) { return c == 2 ? "out of memory" : "other"; }
