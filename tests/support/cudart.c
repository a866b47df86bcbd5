/* A CUDA runtime library on host memory, with a clock of its own: each graph launch takes 1.5 ms. */
#include <stdlib.h>
#include <string.h>
typedef void *P;
static double now; static int capturing;
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
int cudaMalloc(P *p, size_t n) { if (n > (1ull << 40)) return 2; *p = malloc(n); return 0; }
int cudaFree(P p) { free(p); return 0; }
int cudaMemcpy(P d, P s, size_t n, int k) { memcpy(d, s, n); return k == 1 ? 0 : 21; }
int cudaMemcpyAsync(P d, P s, size_t n, int k, P st) { memcpy(d, s, n); return st && (k == 1 || k == 2) ? 0 : 21; }
int cudaStreamCreateWithFlags(P *s, unsigned f) { *s = malloc(8); return f != 1; }
int cudaStreamDestroy(P s) { free(s); return 0; }
int cudaStreamSynchronize(P s) { return 0; }
int cudaStreamBeginCapture(P s, int m) { if (capturing) return 900; capturing = 1; return m != 1; }
int cudaStreamEndCapture(P s, P *g) { *g = capturing ? malloc(8) : 0; capturing = 0; return 0; }
int cudaGraphDestroy(P g) { free(g); return 0; }
int cudaGraphExecDestroy(P e) { free(e); return 0; }
#ifdef OLD
int cudaGraphInstantiate(P *e, P g, P node, char *log, size_t n) { *e = malloc(8); return !g || node || log || n; }
#else
int cudaGraphInstantiateWithFlags(P *e, P g, unsigned long long f) { *e = malloc(8); return !g || f; }
#endif
int cudaGraphLaunch(P e, P s) { now += 1.5; return e && s ? 0 : 21; }
int cudaEventCreateWithFlags(P *e, unsigned f) { *e = calloc(1, 8); return f; }
int cudaEventDestroy(P e) { free(e); return 0; }
int cudaEventRecord(P e, P s) { *(double *)e = now; return 0; }
int cudaEventSynchronize(P e) { return 0; }
int cudaEventElapsedTime(float *ms, P a, P b) { *ms = (float)(*(double *)b - *(double *)a); return 0; }
const char *cudaGetErrorName(int c) {
  return c == 2 ? "cudaErrorMemoryAllocation" : c == 100 ? "cudaErrorNoDevice" : "cudaErrorOther"; }
const char *cudaGetErrorString(int c) { return c == 2 ? "out of memory" : "other"; }
