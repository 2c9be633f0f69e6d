// SPDX-License-Identifier: GPL-2.0-or-later
// kb - kernel/CPU micro benchmarks for a VM yardstick. One static binary; each test runs for a fixed time.
// kb list | kb run NAME [SECS] | kb rep NAME SECS -- CMD... | kb tcpecho PORT | kb io ... | kb fb ... | kb heartbeat
// BENCH name value unit     units: op/s MB/s (higher better), ns us ms s (lower better)
// CHECK name hex            checksum of one fixed piece of work: must be equal on every machine
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <math.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <poll.h>
#include <pthread.h>
#include <termios.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <sys/stat.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <linux/fb.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <immintrin.h>
typedef uint64_t u64; typedef uint32_t u32; typedef uint8_t u8;
#define NOI __attribute__((noinline))
static double now(void){struct timespec t;clock_gettime(CLOCK_MONOTONIC,&t);return t.tv_sec+t.tv_nsec*1e-9;}
static u64 rs=88172645463325252ull;
static inline u64 rnd(void){rs^=rs<<13;rs^=rs>>7;rs^=rs<<17;return rs;}
static u64 mix(u64 h,u64 v){h^=v;h*=0x9E3779B97F4A7C15ull;return h^(h>>29);}
static u64 dbits(double d){u64 u;memcpy(&u,&d,8);return u;}
static void die(const char*s){perror(s);exit(1);}
static void pin(int c){cpu_set_t s;CPU_ZERO(&s);CPU_SET(c,&s);sched_setaffinity(0,sizeof s,&s);}
static int ncpu(void){cpu_set_t s;sched_getaffinity(0,sizeof s,&s);return CPU_COUNT(&s);}
static void*big(size_t n){void*p=mmap(0,n,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);if(p==MAP_FAILED)die("mmap");memset(p,1,n);return p;}
volatile u64 sink;

/* ---------------- integer */
static u64 t_sieve(long n){static u8 f[65536];u64 c=0;while(n--){c=0;memset(f,1,sizeof f);for(u32 i=2;i<65536;i++)if(f[i]){c++;for(u32 j=i*2;j<65536;j+=i)f[j]=0;}}return c;}
static int cmpi(const void*a,const void*b){int x=*(int*)a,y=*(int*)b;return (x>y)-(x<y);}
static u64 t_qsort(long n){static int a[20000];u64 h=0;while(n--){u32 s=12345;for(int i=0;i<20000;i++){s=s*1664525+1013904223;a[i]=s>>1;}qsort(a,20000,4,cmpi);h=mix(a[100],a[19999]);}return h;}
static NOI int fib(int n){return n<2?n:fib(n-1)+fib(n-2);}
static u64 t_fib(long n){u64 r=0;while(n--)r=fib(22);return r;}
static u64 t_crc32(long n){static u32 T[256];static u8 b[65536];if(!T[1]){for(u32 i=0;i<256;i++){u32 c=i;for(int k=0;k<8;k++)c=c&1?0xEDB88320^(c>>1):c>>1;T[i]=c;}for(int i=0;i<65536;i++)b[i]=i*7+(i>>8);}
 u32 c=0;while(n--){c=~0u;for(int i=0;i<65536;i++)c=T[(c^b[i])&255]^(c>>8);}return c;}
static NOI u64 vm(const u8*p,u64 a){static void*L[]={&&inc,&&shl,&&xr,&&dec,&&jnz,&&halt,&&mul,&&rot};u64 c=2000,i=0;
#define NX goto *L[p[i++]]
 NX; inc:a+=3;NX; shl:a^=a<<7;NX; xr:a^=a>>9;NX; dec:c--;NX; jnz:if(c)i=0;NX; mul:a*=0x5851F42D4C957F2Dull;NX; rot:a=a<<13|a>>51;NX; halt:return a;}
static u64 t_interp(long n){static const u8 p[]={0,6,1,7,2,0,1,6,2,3,4,5};u64 h=0;while(n--)h=vm(p,n&0?1:42);return h;}
static u64 t_hash(long n){static u64 k[16384];u64 h=0;while(n--){memset(k,0,sizeof k);u64 s=1;h=0;for(int i=0;i<8000;i++){s=s*6364136223846793005ull+1442695040888963407ull;u64 v=(s>>20)|1;u32 j=(v*0x9E3779B97F4A7C15ull)>>50;while(k[j]&&k[j]!=v)j=(j+1)&16383;k[j]=v;h+=j;}}return h;}
static u64 t_modpow(long n){u64 h=0;while(n--){h=0;for(u64 m=1000003;m<1000103;m+=2){u64 b=123456789,r=1,e=0xdeadbeef;b%=m;while(e){if(e&1)r=r*b%m;b=b*b%m;e>>=1;}h+=r;}}return h;}
static int Q[16];static u64 queens(int n,int r,u32 c,u32 d,u32 e){if(r==n)return 1;u64 s=0;for(u32 a=((1u<<n)-1)&~(c|d|e);a;a&=a-1){u32 b=a&-a;s+=queens(n,r+1,c|b,(d|b)<<1,(e|b)>>1);}return s;}
static u64 t_queens(long n){u64 r=0;while(n--)r=queens(8,0,0,0,0);return r;}
static u64 t_bits(long n){u64 h=0;while(n--){u64 s=7;h=0;for(int i=0;i<20000;i++){s=s*6364136223846793005ull+1;h+=__builtin_ctzll(s|1ull<<40)+(63-__builtin_clzll(s|1));h^=__builtin_bswap64(s);h=(h<<5|h>>59)+(s>>(i&31));}}return h;}
static u64 t_bigmul(long n){static u64 a[64],b[64],c[128];u64 h=0;for(int i=0;i<64;i++){a[i]=0x0123456789abcdefull*(i+1);b[i]=0xfedcba9876543210ull*(2*i+1);}while(n--){memset(c,0,sizeof c);for(int i=0;i<64;i++){unsigned __int128 t=0;for(int j=0;j<64;j++){t=(unsigned __int128)a[i]*b[j]+c[i+j]+(u64)(t>>64);c[i+j]=t;}c[i+64]=t>>64;}h=c[77];}return h;}
typedef u64(*vf)(u64);static NOI u64 f0(u64 x){return x+1;}static NOI u64 f1(u64 x){return x*3;}static NOI u64 f2(u64 x){return x^(x>>5);}static NOI u64 f3(u64 x){return x<<1|x>>63;}
static u64 t_icall(long n){static vf F[4]={f0,f1,f2,f3};u64 h=0;while(n--){u64 x=1;for(int i=0;i<20000;i++)x=((volatile vf*)F)[(x>>3)&3](x);h=x;}return h;}
static u64 t_str(long n){static char a[4096],b[8192];u64 h=0;while(n--){for(int i=0;i<4095;i++)a[i]="lorem ipsum, Dolor sit AMET "[i%28];a[4095]=0;char*d=b;for(char*s=a;*s;s++){char c=*s;if(c>='A'&&c<='Z')c+=32;if(c==' '){*d++='%';*d++='2';*d++='0';}else *d++=c;}*d=0;h=0;for(char*s=b;*s;s++)h=h*31+*s;}return h;}
static u64 t_smallcpy(long n){static u8 a[4096],b[4096];u64 h=0;while(n--){u32 s=1;for(int i=0;i<5000;i++){s=s*1664525+1013904223;size_t l=(s>>8)&63;memcpy(b+((s>>16)&2047),a+((s>>20)&2047),l);}h=b[77]+s;}return h;}
static u64 t_carry(long n){u64 h=0;while(n--){u64 a=1,b=2,c=3,d=4;for(int i=0;i<20000;i++){u64 x=(u64)i*77777777777ull,y=b;asm volatile("add %4,%0\n adc %5,%1\n adc %4,%2\n adc $0,%3\n rcl $1,%0\n sbb %1,%2\n setc %b4\n cmovc %1,%5\n xor %5,%3":"+r"(a),"+r"(b),"+r"(c),"+r"(d),"+q"(x),"+r"(y)::"cc");h+=x+y;}h^=a^b^c^d;}return h;}

/* ---------------- fp */
static u64 t_nbody(long n){double p[5][7]={{0,0,0,0,0,0,39.47},{4.84,-1.16,-.10,.606,2.81,-.02,.037},{8.34,4.12,-.4,-1.01,1.82,.008,.011},{12.89,-15.11,-.22,1.08,.868,-.01,.0017},{15.37,-25.9,.179,.979,.594,-.034,.002}};
 while(n--)for(int s=0;s<1000;s++){double dt=.001;for(int i=0;i<5;i++)for(int j=i+1;j<5;j++){double x=p[i][0]-p[j][0],y=p[i][1]-p[j][1],z=p[i][2]-p[j][2],d=x*x+y*y+z*z,m=dt/(d*sqrt(d));p[i][3]-=x*p[j][6]*m;p[i][4]-=y*p[j][6]*m;p[i][5]-=z*p[j][6]*m;p[j][3]+=x*p[i][6]*m;p[j][4]+=y*p[i][6]*m;p[j][5]+=z*p[i][6]*m;}for(int i=0;i<5;i++)for(int k=0;k<3;k++)p[i][k]+=dt*p[i][k+3];}return dbits(p[0][0])^dbits(p[4][4]);}
static u64 t_matmul(long n){static double a[96][96],b[96][96],c[96][96];while(n--){for(int i=0;i<96;i++)for(int j=0;j<96;j++){a[i][j]=i-j*.5;b[i][j]=i*.25+j;c[i][j]=0;}for(int i=0;i<96;i++)for(int k=0;k<96;k++){double t=a[i][k];for(int j=0;j<96;j++)c[i][j]+=t*b[k][j];}}return dbits(c[5][7])^dbits(c[95][94]);}
static u64 t_lu(long n){static double a[100][100],b[100];while(n--){u32 s=1;for(int i=0;i<100;i++){for(int j=0;j<100;j++){s=s*1664525+1013904223;a[i][j]=(s>>8)/16777216.-.5;}b[i]=1;}for(int k=0;k<99;k++){int m=k;for(int i=k+1;i<100;i++)if(fabs(a[i][k])>fabs(a[m][k]))m=i;if(m!=k){for(int j=k;j<100;j++){double t=a[k][j];a[k][j]=a[m][j];a[m][j]=t;}double t=b[k];b[k]=b[m];b[m]=t;}for(int i=k+1;i<100;i++){double f=a[i][k]/a[k][k];for(int j=k+1;j<100;j++)a[i][j]-=f*a[k][j];b[i]-=f*b[k];}}for(int i=99;i>=0;i--){for(int j=i+1;j<100;j++)b[i]-=a[i][j]*b[j];b[i]/=a[i][i];}}return dbits(b[0])^dbits(b[99]);}
#define MANDEL(T,NAME) static u64 NAME(long n){u64 c=0;while(n--){c=0;for(int y=0;y<24;y++)for(int x=0;x<32;x++){T cr=(T)x/16-(T)1.5,ci=(T)y/12-1,zr=0,zi=0;int k=0;while(k<100){T a=zr*zr,b=zi*zi;if(a+b>4)break;zi=2*zr*zi+ci;zr=a-b+cr;k++;}c+=k;}}return c;}
MANDEL(double,t_mandel) MANDEL(float,t_mandelf) MANDEL(long double,t_x87)
static u64 t_fft(long n){enum{N=1024};static double r[N],m[N],cw[N/2],sw[N/2];if(!cw[0])for(int i=0;i<N/2;i++){cw[i]=cos(2*M_PI*i/N);sw[i]=sin(2*M_PI*i/N);}while(n--){for(int i=0;i<N;i++){r[i]=(i*37)%101;m[i]=0;}for(int i=1,j=0;i<N;i++){int b=N>>1;for(;j&b;b>>=1)j^=b;j^=b;if(i<j){double t=r[i];r[i]=r[j];r[j]=t;}}for(int l=2;l<=N;l*=2)for(int i=0;i<N;i+=l)for(int j=0;j<l/2;j++){int k=j*(N/l);double ur=r[i+j],ui=m[i+j],xr=r[i+j+l/2],xi=m[i+j+l/2],vr=xr*cw[k]-xi*sw[k],vi=xr*sw[k]+xi*cw[k];r[i+j]=ur+vr;m[i+j]=ui+vi;r[i+j+l/2]=ur-vr;m[i+j+l/2]=ui-vi;}}return (u64)llround(r[3]*1e6)^(u64)llround(m[500]*1e6);}
static u64 t_libm(long n){double s=0;while(n--){s=0;for(int i=1;i<2000;i++){double x=i*.013;s+=sin(x)*cos(x)+exp(-x*.1)+log(x)+pow(x,.37)+atan(x);}}return (u64)llround(s*1e6);}
static u64 t_sqrtdiv(long n){double s=0;while(n--){s=0;for(int i=1;i<10000;i++)s+=sqrt((double)i)/(i+s*1e-9);}return dbits(s);}
static u64 t_cvt(long n){u64 h=0;while(n--){h=0;double a=0.5;for(int i=0;i<20000;i++){a=a*1.0000001+i;long l=(long)a;float f=(float)l;int k=(int)(f*.5f);h+=k^l;if(a>1e9)a-=1e9;}}return h;}
static u64 t_biquad(long n){float z1=0,z2=0,y=0;while(n--){z1=z2=y=0;for(int i=0;i<20000;i++){float x=(float)((i*7919)&1023)*.001f;y=.2f*x+z1;z1=.3f*x-(-.5f)*y+z2;z2=.2f*x-.25f*y;}}u32 u;memcpy(&u,&y,4);return u;}

/* ---------------- simd */
static u64 hsum(const void*p,size_t n){u64 h=0;const u64*q=p;for(size_t i=0;i<n/8;i++)h=mix(h,q[i]);return h;}
#define SB 65536
static u8 A_[SB]__attribute__((aligned(64))),B_[SB]__attribute__((aligned(64))),C_[SB]__attribute__((aligned(64)));
static void fillab(void){for(int i=0;i<SB;i++){A_[i]=i*13+(i>>7);B_[i]=i*29+(i>>5);}}
static u64 t_blend(long n){fillab();__m128i z=_mm_setzero_si128(),al=_mm_set1_epi16(77),be=_mm_set1_epi16(179);while(n--)for(int i=0;i<SB;i+=16){__m128i a=_mm_load_si128((void*)(A_+i)),b=_mm_load_si128((void*)(B_+i));__m128i l=_mm_srli_epi16(_mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(a,z),al),_mm_mullo_epi16(_mm_unpacklo_epi8(b,z),be)),8),h=_mm_srli_epi16(_mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(a,z),al),_mm_mullo_epi16(_mm_unpackhi_epi8(b,z),be)),8);_mm_store_si128((void*)(C_+i),_mm_packus_epi16(l,h));}return hsum(C_,SB);}
static u64 t_sad(long n){fillab();u64 r=0;while(n--){__m128i s=_mm_setzero_si128();for(int i=0;i<SB-64;i+=16){__m128i a=_mm_load_si128((void*)(A_+i));s=_mm_add_epi64(s,_mm_sad_epu8(a,_mm_load_si128((void*)(B_+i))));s=_mm_add_epi64(s,_mm_sad_epu8(a,_mm_loadu_si128((void*)(B_+i+3))));s=_mm_add_epi64(s,_mm_sad_epu8(_mm_avg_epu8(a,s),_mm_loadu_si128((void*)(B_+i+17))));}u64 t[2];_mm_storeu_si128((void*)t,s);r=t[0]+t[1];}return r;}
static u64 t_f32(long n){float*c=(float*)C_;__m128 k=_mm_set1_ps(.25f),o=_mm_set1_ps(1.5f);for(int i=0;i<SB/4;i++){((float*)A_)[i]=i*.5f;((float*)B_)[i]=100-i*.125f;c[i]=0;}while(n--)for(int i=0;i<SB/4;i+=4){__m128 a=_mm_load_ps((float*)A_+i),b=_mm_load_ps((float*)B_+i);__m128 v=_mm_add_ps(_mm_mul_ps(a,k),_mm_mul_ps(b,o));v=_mm_max_ps(_mm_sub_ps(v,a),_mm_min_ps(v,b));_mm_store_ps(c+i,_mm_sqrt_ps(_mm_and_ps(v,_mm_castsi128_ps(_mm_set1_epi32(0x7fffffff)))));}return hsum(C_,SB);}
static u64 t_f64(long n){double*c=(double*)C_,*a=(double*)A_,*b=(double*)B_;for(int i=0;i<SB/8;i++){a[i]=i*.5;b[i]=100-i*.125;c[i]=0;}while(n--){__m128d k=_mm_set1_pd(.75);for(int i=0;i<SB/8;i+=2)_mm_store_pd(c+i,_mm_add_pd(_mm_mul_pd(_mm_load_pd(a+i),k),_mm_mul_pd(_mm_load_pd(b+i),_mm_load_pd(a+i))));}return hsum(C_,SB);}
static u64 t_shuf(long n){fillab();while(n--)for(int i=0;i<SB;i+=16){__m128i a=_mm_load_si128((void*)(A_+i)),b=_mm_load_si128((void*)(B_+i));__m128i l=_mm_unpacklo_epi16(a,b),h=_mm_unpackhi_epi16(a,b);l=_mm_shuffle_epi32(l,0x1b);h=_mm_shufflelo_epi16(h,0x4e);a=_mm_xor_si128(_mm_slli_epi32(l,5),_mm_srli_epi64(h,3));b=_mm_cmpgt_epi8(a,b);_mm_store_si128((void*)(C_+i),_mm_or_si128(_mm_and_si128(b,l),_mm_andnot_si128(b,h)));}return hsum(C_,SB);}
__attribute__((target("ssse3,sse4.1")))static u64 t_sse41(long n){fillab();while(n--){__m128i m=_mm_set_epi8(0,2,4,6,8,10,12,14,1,3,5,7,9,11,13,15);for(int i=0;i<SB;i+=16){__m128i a=_mm_shuffle_epi8(_mm_load_si128((void*)(A_+i)),m),b=_mm_load_si128((void*)(B_+i));a=_mm_maddubs_epi16(a,b);a=_mm_mullo_epi32(a,b);b=_mm_min_epu32(a,b);_mm_store_si128((void*)(C_+i),_mm_blendv_epi8(a,_mm_abs_epi8(b),m));}}return hsum(C_,SB);}
__attribute__((target("avx2")))static u64 t_avx2(long n){fillab();while(n--){__m256i k=_mm256_set1_epi16(123);for(int i=0;i<SB;i+=32){__m256i a=_mm256_load_si256((void*)(A_+i)),b=_mm256_load_si256((void*)(B_+i));a=_mm256_add_epi16(_mm256_mullo_epi16(a,k),_mm256_srli_epi16(b,2));b=_mm256_shuffle_epi8(a,b);a=_mm256_max_epu8(a,_mm256_permute4x64_epi64(b,0x1b));_mm256_store_si256((void*)(C_+i),_mm256_xor_si256(a,b));}}return hsum(C_,SB);}
__attribute__((target("avx2,fma")))static u64 t_avxfma(long n){double*c=(double*)C_,*a=(double*)A_,*b=(double*)B_;for(int i=0;i<SB/8;i++){a[i]=i*.5;b[i]=100-i*.125;c[i]=0;}while(n--){for(int i=0;i<SB/8;i+=4)_mm256_store_pd(c+i,_mm256_fmadd_pd(_mm256_load_pd(a+i),_mm256_load_pd(b+i),_mm256_set1_pd(.5)));}return hsum(C_,SB);}
static u64 t_memchr(long n){static char*p;if(!p){p=big(1<<20);memset(p,'x',1<<20);p[(1<<20)-5]='y';}u64 h=0;while(n--){h=(char*)memchr(p,'y',1<<20)-p;asm volatile(""::"r"(p):"memory");}return h;}
static u64 t_strlen(long n){static char*p;if(!p){p=big(1<<16);memset(p,'x',1<<16);p[65000]=0;}u64 h=0;while(n--){asm volatile(""::"r"(p):"memory");h=strlen(p);}return h;}

/* ---------------- memory */
#define MB (1<<20)
static char *M1,*M2;static void mm(void){if(!M1){M1=big(32*MB);M2=big(32*MB);}}
static u64 t_memcpy(long n){mm();while(n--){memcpy(M2,M1,32*MB);asm volatile(""::"r"(M2):"memory");}return 0;}
static u64 t_memset(long n){mm();while(n--){memset(M2,n,32*MB);asm volatile(""::"r"(M2):"memory");}return 0;}
static u64 t_rdsum(long n){mm();u64 s=0;while(n--){for(u64*p=(u64*)M1,*e=(u64*)(M1+32*MB);p<e;p+=4){s+=p[0];s+=p[1];s+=p[2];s+=p[3];asm volatile("":"+r"(s));}}return s;}
static u64 t_triad(long n){mm();double*a=(double*)M1,*b=(double*)M2;while(n--)for(int i=0;i<MB;i++)a[i]=b[i]+3.0*b[i+MB];return 0;}
static u64 t_repmovs(long n){mm();while(n--){void*d=M2,*s=M1;size_t c=64*1024;asm volatile("rep movsb":"+D"(d),"+S"(s),"+c"(c)::"memory");}return 0;}
static u64 t_repstosd(long n){mm();while(n--){void*d=M2;size_t c=16*1024;asm volatile("rep stosl":"+D"(d),"+c"(c):"a"(0x55):"memory");}return 0;}
static u64 chase(long n,size_t sz){static void**p;static size_t have;if(have!=sz){size_t k=sz/64;p=big(sz);u32*ix=malloc(k*4);for(size_t i=0;i<k;i++)ix[i]=i;rs=88172645463325252ull;for(size_t i=k-1;i>0;i--){size_t j=rnd()%i;u32 t=ix[i];ix[i]=ix[j];ix[j]=t;}for(size_t i=0;i<k;i++)p[ix[i]*8]=&p[ix[(i+1)%k]*8];free(ix);have=sz;}
 void**q=p;while(n--){for(int i=0;i<125;i++){q=*q;q=*q;q=*q;q=*q;q=*q;q=*q;q=*q;q=*q;}}sink=(u64)q;return 0;}
static u64 t_ch16k(long n){return chase(n,16<<10);}static u64 t_ch512k(long n){return chase(n,512<<10);}static u64 t_ch8m(long n){return chase(n,8<<20);}static u64 t_ch64m(long n){return chase(n,64<<20);}
static u64 t_atomic(long n){static u64 v;v=0;while(n--)for(int i=0;i<1000;i++)__sync_fetch_and_add(&v,1);return v;}
static u64 t_cmpxchg(long n){static u64 v;v=0;while(n--)for(int i=0;i<1000;i++){u64 o=v;while(!__sync_bool_compare_and_swap(&v,o,o+3))o=v;}return v;}
static u64 t_unal(long n){mm();u64 s=0;while(n--){for(int i=0;i<1000;i++){u64 v;memcpy(&v,M1+i*4096+4093,8);s+=v;}}return s;}
static u64 t_histo(long n){mm();u32*h=(u32*)M2;u64 s=1;while(n--)for(int i=0;i<10000;i++){s=s*6364136223846793005ull+1442695040888963407ull;h[s>>43]++;}return s;}
static u64 t_stack(long n){u64 s=1;while(n--)for(int i=0;i<1000;i++)asm volatile("push %0\npush %0\npush %0\npush %0\npop %%rcx\npop %%rdx\npop %%rcx\npop %0":"+r"(s)::"rcx","rdx","memory");return s;}

/* ---------------- system */
static u64 t_getppid(long n){u64 s=0;while(n--)for(int i=0;i<100;i++)s=syscall(SYS_getppid);sink=s;return 0;}
static u64 t_gettime(long n){struct timespec t;while(n--)for(int i=0;i<100;i++)clock_gettime(CLOCK_MONOTONIC,&t);return 0;}
static u64 t_rdtsc(long n){u64 s=0;while(n--)for(int i=0;i<1000;i++)s+=__builtin_ia32_rdtsc();sink=s;return 0;}
static u64 t_cpuid(long n){while(n--)for(int i=0;i<10;i++){u32 a=0,b,c=0,d;asm volatile("cpuid":"+a"(a),"=b"(b),"+c"(c),"=d"(d));}return 0;}
static u64 t_read(long n){static int f;if(!f)f=open("/dev/zero",O_RDONLY);char b[512];while(n--)for(int i=0;i<100;i++)if(read(f,b,512)!=512)die("read");return 0;}
static u64 t_write(long n){static int f;if(!f)f=open("/dev/null",O_WRONLY);char b[512]={0};while(n--)for(int i=0;i<100;i++)if(write(f,b,512)!=512)die("write");return 0;}
static u64 t_stat(long n){struct stat s;while(n--)for(int i=0;i<100;i++)stat("/bin/busybox",&s);return 0;}
static u64 pp(long n,int c0,int c1){int a[2],b[2];if(pipe(a)||pipe(b))die("pipe");char c='x';pid_t p=fork();if(!p){pin(c1);close(a[1]);while(read(a[0],&c,1)==1)if(write(b[1],&c,1)!=1)break;_exit(0);}cpu_set_t old;sched_getaffinity(0,sizeof old,&old);pin(c0);close(a[0]);while(n--)for(int i=0;i<50;i++){if(write(a[1],&c,1)!=1||read(b[0],&c,1)!=1)die("pp");}close(a[1]);close(b[0]);close(b[1]);waitpid(p,0,0);sched_setaffinity(0,sizeof old,&old);return 0;}
static u64 t_pp1(long n){return pp(n,0,0);}static u64 t_pp2(long n){return pp(n,0,1);}
static u64 t_fork(long n){while(n--){pid_t p=fork();if(!p)_exit(0);waitpid(p,0,0);}return 0;}
static u64 t_exec(long n){while(n--){pid_t p=vfork();if(!p){char*v[]={"/bin/busybox","true",0};execv(v[0],v);_exit(1);}waitpid(p,0,0);}return 0;}
static u64 t_execdyn(long n){while(n--){pid_t p=vfork();if(!p){char*v[]={"/bin/dyntrue",0};execv(v[0],v);_exit(1);}waitpid(p,0,0);}return 0;}
static u64 t_fault(long n){while(n--){char*p=mmap(0,MB,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);madvise(p,MB,MADV_NOHUGEPAGE);for(int i=0;i<256;i++)p[i*4096]=1;munmap(p,MB);}return 0;}
static u64 t_mmap(long n){while(n--)for(int i=0;i<10;i++){char*p=mmap(0,4096,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);*p=1;munmap(p,4096);}return 0;}
static u64 t_mprot(long n){static char*p;if(!p)p=big(65536);while(n--)for(int i=0;i<10;i++){mprotect(p,65536,PROT_READ);mprotect(p,65536,3);p[4096*(i&7)]=1;}return 0;}
static volatile int sg;static void sh(int s){sg++;}
static u64 t_sig(long n){signal(SIGUSR1,sh);pid_t me=getpid();while(n--)for(int i=0;i<10;i++)kill(me,SIGUSR1);return 0;}
static u64 t_tmpfs(long n){char f[64];char b[4096]={0};while(n--)for(int i=0;i<10;i++){sprintf(f,"/tmp/kb.%d.%d",getpid(),i);int d=open(f,O_CREAT|O_RDWR,0600);if(d<0)die(f);if(write(d,b,4096)!=4096)die("w");close(d);unlink(f);}return 0;}
static void*thr(void*a){return a;}
static u64 t_pthread(long n){while(n--){pthread_t t;pthread_create(&t,0,thr,0);pthread_join(t,0);}return 0;}
static pthread_mutex_t MX=PTHREAD_MUTEX_INITIALIZER;static volatile u64 cnt;static volatile int stop;
static void*mxthr(void*a){while(!stop){pthread_mutex_lock(&MX);cnt++;pthread_mutex_unlock(&MX);}return 0;}
static void*attr_thr(void*a){volatile u64*p=a;while(!stop)__sync_fetch_and_add(p,1);return 0;}
static u64 t_yield(long n){while(n--)for(int i=0;i<100;i++)sched_yield();return 0;}
static u64 t_poll(long n){static struct pollfd f[100];static int fd;if(!fd){int p[2];if(pipe(p))die("pipe");fd=p[0];for(int i=0;i<100;i++){f[i].fd=fd;f[i].events=POLLIN;}}while(n--)for(int i=0;i<10;i++)poll(f,100,0);return 0;}
static u64 sock(long n,int tcp){static int w;static pid_t pid;if(!w){int s[2];if(tcp){int l=socket(AF_INET,SOCK_STREAM,0);struct sockaddr_in a={.sin_family=AF_INET,.sin_addr.s_addr=htonl(INADDR_LOOPBACK)};socklen_t al=sizeof a;if(bind(l,(void*)&a,al)||listen(l,1)||getsockname(l,(void*)&a,&al))die("lo");s[0]=socket(AF_INET,SOCK_STREAM,0);if(connect(s[0],(void*)&a,al))die("connect");s[1]=accept(l,0,0);}else if(socketpair(AF_UNIX,SOCK_STREAM,0,s))die("sp");
 if(!(pid=fork())){static char b[65536];close(s[0]);long t=0;for(;;){ssize_t r=read(s[1],b,65536);if(r<=0)_exit(0);t+=r;while(t>=MB){t-=MB;if(write(s[1],"k",1)!=1)_exit(0);}}}close(s[1]);w=s[0];}
 static char b[65536];while(n--){for(int i=0;i<16;i++)if(write(w,b,65536)!=65536)die("w");char c;if(read(w,&c,1)!=1)die("r");}return 0;}
static u64 t_usock(long n){return sock(n,0);}static u64 t_tcplo(long n){return sock(n,1);}
static u64 t_smc(long n){static u8*p;if(!p){p=mmap(0,4096,7,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);}u64 s=0;while(n--){for(u32 i=0;i<20;i++){p[0]=0xb8;memcpy(p+1,&i,4);p[5]=0xc3;s+=((u32(*)(void))p)();}}return s;}
static u64 t_jit(long n){u64 s=0;while(n--){u8*p=mmap(0,65536,3,MAP_PRIVATE|MAP_ANONYMOUS,-1,0);size_t o=0;for(u32 k=0;k<400;k++){u8 c[]={0x89,0xf8,0x05,0,0,0,0,0x31,0xc2,0xc1,0xc0,0x05,0x01,0xd0};memcpy(c+3,&k,4);memcpy(p+o,c,sizeof c);o+=sizeof c;p[o++]=0x89;p[o++]=0xc7;}p[o++]=0xc3;mprotect(p,65536,5);for(int i=0;i<4;i++){u32 r;asm volatile("call *%1":"=a"(r):"r"(p),"D"(i),"d"(7):"memory","cc");s+=r;}munmap(p,65536);}return 0;}
static void segv(int s,siginfo_t*i,void*u){mprotect((void*)((u64)i->si_addr&~4095ull),4096,3);}
static u64 t_segv(long n){struct sigaction a={.sa_flags=SA_SIGINFO};a.sa_sigaction=segv;sigaction(SIGSEGV,&a,0);static volatile char*p;if(!p)p=big(65536);while(n--){mprotect((void*)p,65536,0);for(int i=0;i<16;i++)p[i*4096]=1;}signal(SIGSEGV,SIG_DFL);return 0;}
static u64 t_divexc(long n);static volatile int dz;static void fpe(int s,siginfo_t*i,void*u){ucontext_t*c=u;c->uc_mcontext.gregs[16]+=2;}
#include <ucontext.h>
static u64 t_divexc(long n){struct sigaction a={.sa_flags=SA_SIGINFO};a.sa_sigaction=fpe;sigaction(SIGFPE,&a,0);while(n--)asm volatile("xor %%edx,%%edx\nxor %%ecx,%%ecx\n.byte 0xf7,0xf1":::"eax","ecx","edx");return 0;}
static u64 t_tlbshoot(long n){static int up;static volatile char*p;if(!up){p=big(65536);stop=0;static u64 v;pthread_t t;pthread_create(&t,0,attr_thr,&v);up=1;}while(n--)for(int i=0;i<10;i++){mprotect((void*)p,65536,PROT_READ);mprotect((void*)p,65536,3);p[4096]=1;}return 0;}

enum{OPS,BW,LAT};
struct T{const char*name,*unit;double scale;u64(*f)(long);const char*need;int nosum;};
// scale: units of work per call of f(1). For ns tests: accesses per call.
static struct T TS[]={
{"int.sieve","op/s",1,t_sieve},{"int.qsort","op/s",1,t_qsort},{"int.fib","op/s",1,t_fib},{"int.crc32","MB/s",65536/1e6,t_crc32},
{"int.interp","op/s",2000,t_interp},{"int.hash","op/s",1,t_hash},{"int.modpow","op/s",1,t_modpow},{"int.queens","op/s",1,t_queens},
{"int.bits","op/s",1,t_bits},{"int.bigmul","op/s",1,t_bigmul},{"int.icall","op/s",1,t_icall},{"int.str","op/s",1,t_str},{"int.smallcpy","op/s",1,t_smallcpy},{"int.carry","op/s",1,t_carry},
{"fp.nbody","op/s",1,t_nbody},{"fp.matmul","op/s",1,t_matmul},{"fp.lu100","op/s",1,t_lu},{"fp.mandel64","op/s",1,t_mandel},{"fp.mandel32","op/s",1,t_mandelf},{"fp.x87mandel","op/s",1,t_x87},
{"fp.fft1k","op/s",1,t_fft},{"fp.libm","op/s",1,t_libm},{"fp.sqrtdiv","op/s",1,t_sqrtdiv},{"fp.cvt","op/s",1,t_cvt},{"fp.biquad32","op/s",1,t_biquad},
{"simd.blend","MB/s",.065536,t_blend},{"simd.sad","MB/s",.065536,t_sad},{"simd.f32","MB/s",.065536,t_f32},{"simd.f64","MB/s",.065536,t_f64},{"simd.shuf","MB/s",.065536,t_shuf},
{"simd.sse41","MB/s",.065536,t_sse41,"sse4.1"},{"simd.avx2","MB/s",.065536,t_avx2,"avx2"},{"simd.avxfma","MB/s",.065536,t_avxfma,"fma"},{"simd.memchr","MB/s",1.048576,t_memchr},{"simd.strlen","MB/s",.065,t_strlen},
{"mem.memcpy","MB/s",33.554432,t_memcpy},{"mem.memset","MB/s",33.554432,t_memset},{"mem.rdsum","MB/s",33.554432,t_rdsum},{"mem.triad","MB/s",25.165824,t_triad},
{"mem.repmovsb","MB/s",.065536,t_repmovs},{"mem.repstosd","MB/s",.065536,t_repstosd},{"mem.chase16k","ns",1000,t_ch16k},{"mem.chase512k","ns",1000,t_ch512k},{"mem.chase8m","ns",1000,t_ch8m},{"mem.chase64m","ns",1000,t_ch64m},
{"mem.lockxadd","ns",1000,t_atomic},{"mem.cmpxchg","ns",1000,t_cmpxchg},{"mem.pagecross","ns",1000,t_unal,0,1},{"mem.histo8m","op/s",10000,t_histo},{"mem.pushpop","op/s",8000,t_stack},
{"sys.getppid","op/s",100,t_getppid},{"sys.gettime","op/s",100,t_gettime},{"sys.rdtsc","op/s",1000,t_rdtsc},{"sys.read512","op/s",100,t_read},{"sys.write512","op/s",100,t_write},{"sys.stat","op/s",100,t_stat},{"sys.poll100","op/s",10,t_poll},
{"sys.pipe_pp","op/s",50,t_pp1},{"sys.yield","op/s",100,t_yield},{"sys.fork","op/s",1,t_fork},{"sys.exec","op/s",1,t_exec},{"sys.execdyn","op/s",1,t_execdyn},{"sys.fault","op/s",256,t_fault},{"sys.mmap","op/s",10,t_mmap},{"sys.mprotect","op/s",10,t_mprot},
{"sys.signal","op/s",10,t_sig},{"sys.segv","op/s",16,t_segv},{"sys.divexc","op/s",1,t_divexc},{"sys.tmpfs","op/s",10,t_tmpfs},{"sys.pthread","op/s",1,t_pthread},{"sys.unixsock","MB/s",1.048576,t_usock},{"sys.tcplo","MB/s",1.048576,t_tcplo},
{"jit.smc","op/s",20,t_smc},{"jit.gen","op/s",1,t_jit},
{"trap.cpuid","op/s",10,t_cpuid},
{"smp.pipe_pp2","op/s",50,t_pp2},{"smp.tlbshoot","op/s",10,t_tlbshoot},
{0}};
static double measure(u64(*f)(long),double secs){ // best rate over >=4 windows of secs/5
 double w=secs/5;long n=1;double t,best=0;f(1);for(;;){double a=now();f(n);t=now()-a;if(t>=w/4||n>(1l<<40))break;n=t>w/100?n*(w/t*.8)+1:n*8;}
 n=n*(w/t)+1;double end=now()+secs;do{double a=now();f(n);t=now()-a;double r=n/t;if(r>best)best=r;}while(now()<end);return best;}
static int has(const char*s){__builtin_cpu_init();if(!s)return 1;if(!strcmp(s,"sse4.1"))return __builtin_cpu_supports("sse4.1")&&__builtin_cpu_supports("ssse3");if(!strcmp(s,"avx2"))return __builtin_cpu_supports("avx2");if(!strcmp(s,"fma"))return __builtin_cpu_supports("fma")&&__builtin_cpu_supports("avx2");return 0;}
static void report(const char*name,double v,const char*u){printf("BENCH %s %.6g %s\n",name,v,u);fflush(stdout);}
static void run1(struct T*t,double secs){if(!has(t->need)){printf("SKIP %s no-%s\n",t->name,t->need);return;}
 if(strncmp(t->name,"sys",3)&&strncmp(t->name,"smp",3)&&strncmp(t->name,"trap",4)&&strncmp(t->name,"mem",3)){u64 c=t->f(1);printf("CHECK %s %016llx\n",t->name,(unsigned long long)c);fflush(stdout);}
 double r=measure(t->f,secs);if(!strcmp(t->unit,"ns"))report(t->name,1e9/r/t->scale,"ns");else report(t->name,r*t->scale,t->unit);}
static double clamp(double x){return x;}
static int special(const char*n,double secs){
 if(!strcmp(n,"sys.nanosleep")){ // oversleep of a 200us sleep, median
  static double v[100000];int k=0;double e=now()+secs;while(now()<e&&k<100000){struct timespec q={0,200000};double a=now();nanosleep(&q,0);v[k++]=(now()-a)*1e6-200;}int c(const void*a,const void*b){double x=*(double*)a,y=*(double*)b;return (x>y)-(x<y);}qsort(v,k,8,c);report(n,v[k/2],"us");report("sys.nanosleep_p99",v[(int)(k*.99)],"us");return 1;}
 if(!strcmp(n,"smp.mutex2")||!strcmp(n,"smp.atomic2")){int at=n[4]=='a';pthread_t t[2];u64 best=0;static u64 v;stop=0;for(int i=0;i<2;i++)pthread_create(&t[i],0,at?attr_thr:mxthr,&v);double a0=now();u64 c0=at?v:cnt;usleep(secs*1e6);u64 c1=at?*(volatile u64*)&v:cnt;double dt=now()-a0;stop=1;for(int i=0;i<2;i++)pthread_join(t[i],0);report(n,(c1-c0)/dt,"op/s");(void)best;return 1;}
 if(!strncmp(n,"smp2.",5)){ // two copies of a test at once: smp2.int.fib
  for(struct T*t=TS;t->name;t++)if(!strcmp(t->name,n+5)){if(!has(t->need))return 1;int p[2];if(pipe(p))die("pipe");for(int i=0;i<2;i++)if(!fork()){if(ncpu()>1)pin(i);double r=measure(t->f,secs);if(write(p[1],&r,8)!=8)_exit(1);_exit(0);}double s=0,r;for(int i=0;i<2;i++){if(read(p[0],&r,8)==8)s+=r;}while(wait(0)>0);if(!strcmp(t->unit,"ns"))report(n,1e9/s/t->scale*2,"ns");else report(n,s*t->scale,t->unit);return 1;}}
 return 0;}
static int rep(int argc,char**argv){ // rep NAME SECS -- cmd...  : wall time of a whole command, cold (first) and best
 double secs=atof(argv[1]);char**cmd=argv+3;double best=1e9,cold=0,e=now()+secs;int k=0;do{double a=now();pid_t p=fork();if(!p){int f=open("/dev/null",O_RDWR);dup2(f,0);dup2(f,1);execvp(cmd[0],cmd);perror(cmd[0]);_exit(127);}int st;waitpid(p,&st,0);double t=now()-a;if(st){printf("FAIL %s status=%x\n",argv[0],st);return 1;}if(!k)cold=t;else if(t<best)best=t;k++;}while(k<2||(now()<e&&k<50));
 report(argv[0],best*1e3,"ms");char b[128];const char*d=strchr(argv[0],'.');snprintf(b,sizeof b,"cold.%s",d?d+1:argv[0]);report(b,cold*1e3,"ms");return 0;}
static void tcpecho(int port){int l=socket(AF_INET,SOCK_STREAM,0),o=1;setsockopt(l,SOL_SOCKET,SO_REUSEADDR,&o,4);struct sockaddr_in a={.sin_family=AF_INET,.sin_port=htons(port)};if(bind(l,(void*)&a,sizeof a)||listen(l,4))die("bind");signal(SIGCHLD,SIG_IGN);for(;;){int s=accept(l,0,0);if(s<0)continue;setsockopt(s,IPPROTO_TCP,TCP_NODELAY,&o,4);if(!fork()){char b[4096];ssize_t r;while((r=read(s,b,4096))>0)if(write(s,b,r)!=r)break;_exit(0);}close(s);}}
static void fbmode(const char*m,double secs){ // needs /dev/fb0 32bpp
 int f=open("/dev/fb0",O_RDWR);if(f<0){printf("SKIP fb no-fb0\n");return;}struct fb_var_screeninfo v;struct fb_fix_screeninfo x;ioctl(f,FBIOGET_VSCREENINFO,&v);ioctl(f,FBIOGET_FSCREENINFO,&x);printf("FB %dx%d %d bpp line %d\n",v.xres,v.yres,v.bits_per_pixel,x.line_length);fflush(stdout);
 if(v.bits_per_pixel!=32){printf("SKIP fb bpp\n");return;}u8*p=mmap(0,x.smem_len,3,MAP_SHARED,f,0);if(p==MAP_FAILED)die("mmap fb");u32*row=malloc(x.line_length);int W=v.xres,H=v.yres;
 if(!strcmp(m,"flip")){double e=now()+secs;int k=0;double a=now();while(now()<e){u32 c=(k*0x010307+0x102030)&0xffffff;c=(c&~0xffu)|(k&255);for(int i=0;i<W;i++)row[i]=c;for(int y=0;y<H;y++)memcpy(p+y*x.line_length,row,W*4);k++;}printf("BENCH fb.flipmax %.2f op/s\n",k/(now()-a));fflush(stdout);}
 else if(!strcmp(m,"flip30")){ // 60 distinct frames per second at most
  double e=now()+secs,nx=now();int k=0;while(now()<e){u32 c=(k*0x010307)&0xffff00;c|=k&255;for(int i=0;i<W;i++)row[i]=c;for(int y=0;y<H;y++)memcpy(p+y*x.line_length,row,W*4);k++;nx+=1/60.;double d=nx-now();if(d>0)usleep(d*1e6);}printf("BENCH fb.flip60 %.2f op/s\n",k/secs);fflush(stdout);}
 else if(!strcmp(m,"blit")){double e=now()+secs;long k=0;double a=now();while(now()<e){for(int y=0;y<H;y++)memset(p+y*x.line_length,k,W*4);k++;}report("fb.fill",k*(double)W*H*4/1e6/(now()-a),"MB/s");}
 else if(!strcmp(m,"lat")){ // small square toggles after a serial byte
  memset(p,0,x.line_length*H);usleep(1500000);double e=now()+secs;int k=1;while(now()<e){u32 c=(k&1)?0xffffff:0x204060;c=(c&~0xffu)|((k*7)&255);printf("T%d\n",k);fflush(stdout);for(int y=0;y<64;y++)for(int i=0;i<64;i++)((u32*)(p+(y+100)*x.line_length))[i+100]=c;k++;usleep(150000+(k*37%50)*1000);}printf("FBEND\n");fflush(stdout);}
 else if(!strcmp(m,"key")){ // each byte read on tty1 toggles the square
  int t=open("/dev/tty1",O_RDWR);struct termios o;tcgetattr(t,&o);cfmakeraw(&o);tcsetattr(t,TCSANOW,&o);printf("FBREADY\n");fflush(stdout);memset(p,0,x.line_length*H);char c;int k=0;while(read(t,&c,1)==1){k++;u32 q=(k&1)?0xffffff:0x204060;q=(q&~0xffu)|((k*7)&255);for(int y=0;y<64;y++)for(int i=0;i<64;i++)((u32*)(p+(y+100)*x.line_length))[i+100]=q;if(c=='q')break;}printf("FBEND\n");fflush(stdout);}}
int main(int argc,char**argv){
 if(argc<2){puts("kb list|run NAME [SECS]|rep NAME SECS -- CMD|tcpecho PORT|fb MODE SECS|heartbeat MS|now");return 1;}
 if(!strcmp(argv[1],"list")){for(struct T*t=TS;t->name;t++)puts(t->name);puts("sys.nanosleep");puts("smp.mutex2");puts("smp.atomic2");puts("smp2.int.fib");puts("smp2.fp.nbody");puts("smp2.mem.memcpy");puts("smp2.sys.fork");puts("smp2.sys.getppid");return 0;}
 if(!strcmp(argv[1],"run")&&argc>2){double s=argc>3?atof(argv[3]):.5;if(special(argv[2],s))return 0;size_t l=strlen(argv[2]);int k=0;for(struct T*t=TS;t->name;t++)if(!strncmp(t->name,argv[2],l)&&(t->name[l]==0||argv[2][l-1]=='.')){ fflush(stdout);pid_t p=fork();if(!p){run1(t,s);fflush(stdout);kill(0,0);_exit(0);}int st;waitpid(p,&st,0);if(st)printf("FAIL %s status=%x\n",t->name,st);k++;}if(!k)printf("FAIL %s unknown\n",argv[2]);return 0;}
 if(!strcmp(argv[1],"rep")&&argc>5)return rep(argc-2,argv+2);
 if(!strcmp(argv[1],"tcpecho"))tcpecho(atoi(argv[2]));
 if(!strcmp(argv[1],"fb"))fbmode(argv[2],argc>3?atof(argv[3]):5);
 if(!strcmp(argv[1],"heartbeat")){int ms=atoi(argv[2]);for(long k=0;;k++){char b[32];int n=sprintf(b,"H%ld\n",k);if(write(1,b,n)<0)return 1;usleep(ms*1000);}}
 if(!strcmp(argv[1],"now"))printf("NOW %.6f\n",now());
 (void)clamp;return 0;}
