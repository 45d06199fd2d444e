# weir. `make help` lists the targets. GNU make; everything that is made goes below $(BUILD).
#
# Sources are found by looking: every src/**/*.c but src/main.c goes into a library, which the
# program, the unit tests and the fuzz drivers link. A new file needs no line here.

BUILD = build
PREFIX = /usr
CFLAGS = -O3 -g
SECONDS = 60
SEEDS = 500
V = 0

ifeq ($(origin CC),default)
CC = gcc
endif
CC_IS_CLANG := $(findstring clang,$(notdir $(CC)))
# Link-time optimisation of build/weir, LTO=0 or 1. Only gcc: clang would need lld and llvm-ar, and
# is here for its warnings and its fuzzer.
LTO = $(if $(CC_IS_CLANG),0,1)

WARNINGS = -Wall -Wextra -Wshadow -Wconversion -Wswitch-enum -Wmissing-prototypes -Wvla -Werror
COMMON = -std=gnu17 -D_GNU_SOURCE -Isrc $(WARNINGS) -pthread
# --as-needed: a library that nothing calls is not loaded.
LIBS = -Wl,--as-needed -luring -linih -lpcre2-8 -lssl -lcrypto -lnghttp2 -lwslay -lm
# Not as needed: it takes malloc over from libc, also for the libraries.
JEMALLOC = -Wl,--no-as-needed -ljemalloc
SANITIZE = -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
# jemalloc would take malloc away from AddressSanitizer.
CHECKED = -g -DWEIR_NO_JEMALLOC $(SANITIZE)
# gcc sees less through the sanitizers' code and warns of what cannot be; the release build decides.
DEBUG = -Og $(CHECKED) $(if $(CC_IS_CLANG),,-Wno-format-truncation -Wno-maybe-uninitialized)
# Fat objects: the program is linked with LTO, the unit tests, quickly, without.
LTO_1 = -flto=auto -ffat-lto-objects
# More than a hundred unit tests are linked: where there is gold (binutils), it takes a third of the
# time of ld.
LINK_UNIT := $(LDFLAGS)$(if $(shell command -v ld.gold), -fuse-ld=gold) -Wl,--wrap=clock_now_ns

SOURCES := $(sort $(shell find src -name '*.c'))
UNIT_SOURCES := $(sort $(shell find tests/unit -name '*.c' 2>/dev/null))
UNIT_TESTS := $(patsubst %.c,%,$(filter %_test.c,$(UNIT_SOURCES)))
UNIT_HELPERS := $(patsubst %.c,%.o,$(filter-out %_test.c,$(UNIT_SOURCES)))
SIM_SOURCES := $(sort $(wildcard tests/sim/*.c))
# The calls of src/ that the simulation answers: system calls on descriptors, time, chance, sizes.
SIM_WRAPS = socket bind listen accept4 connect setsockopt getsockopt shutdown send sendmsg \
	getpeername getsockname ioctl close fcntl pipe2 splice syscall clock_gettime rand_seed \
	net_init nghttp2_session_server_new3 nghttp2_session_client_new3 nghttp2_session_del \
	nghttp2_session_consume_connection nghttp2_session_consume_stream \
	nghttp2_session_callbacks_set_on_frame_recv_callback \
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback
FUZZERS := $(patsubst %.c,%,$(sort $(wildcard tests/fuzz/*_fuzz.c)))

COMMA = ,
Q = $(if $(filter 0,$(V)),@,)
SAY = @$(if $(filter 0,$(V)),echo,:)

.PHONY: all debug run test unit behaviour vm sim tidy fuzz bench format install clean help
.DELETE_ON_ERROR:
.SUFFIXES:

all: $(BUILD)/weir ## build/weir: optimised (the default; CC=clang, LTO=0, V=1)

debug: $(BUILD)/debug/weir ## build/debug/weir: with AddressSanitizer and UBSan

# A variant is one set of flags with a folder of its own: variant NAME, COMPILER, COMPILE, LINK,
# WITHOUT (sources, as %).
# Its objects depend on an empty file named after the flags, so other flags make everything anew.
define variant
FLAGS_$(1) := $(BUILD)/$(1)/flags-$(firstword \
		$(shell echo '$(2) $(COMMON) $(3) $(4) $(LIBS)' | cksum))
$$(FLAGS_$(1)):
	@mkdir -p $$(@D)
	@rm -f $(BUILD)/$(1)/flags-*
	@touch $$@

$(BUILD)/$(1)/%.o: %.c $$(FLAGS_$(1))
	$$(SAY) "  CC    $(1) $$<"
	@mkdir -p $$(@D)
	$$(Q)$(2) $(COMMON) $(3) $$(if $$(filter tests/%,$$<),-Itests -fno-lto) \
		-MMD -MP -c -o $$@ $$<

# It depends on the folders too: they change when a file goes away.
$(BUILD)/$(1)/libweir.a: \
		$(patsubst %.c,$(BUILD)/$(1)/%.o,$(filter-out src/main.c $(5),$(SOURCES))) \
		$(sort $(patsubst %/,%,$(dir $(SOURCES))))
	@rm -f $$@
	$$(Q)ar rcs $$@ $$(filter %.o,$$^)

-include $(patsubst %.c,$(BUILD)/$(1)/%.d,$(SOURCES) $(UNIT_SOURCES) $(SIM_SOURCES))
-include $(patsubst %,$(BUILD)/$(1)/%.d,$(FUZZERS))
endef

# A unit test is one program: its file, the helpers (files not named *_test.c), the library.
define unit
$(BUILD)/$(1)/tests/unit/%_test: $(BUILD)/$(1)/tests/unit/%_test.o \
		$(addprefix $(BUILD)/$(1)/,$(UNIT_HELPERS)) $(BUILD)/$(1)/libweir.a
	$$(SAY) "  LINK  $$@"
	$$(Q)$(CC) -pthread $(2) -o $$@ $$^ $(LIBS) -lcmocka $(3)

unit-$(1): $(addprefix $(BUILD)/$(1)/,$(UNIT_TESTS))
.PHONY: unit-$(1)
.SECONDARY: $(patsubst %.c,$(BUILD)/$(1)/%.o,$(UNIT_SOURCES))
endef

# The simulation: the library over a kernel of its own, so without liburing.
define simulation
$(BUILD)/$(1)/sim: $(patsubst %.c,$(BUILD)/$(1)/%.o,$(SIM_SOURCES)) $(BUILD)/$(1)/libweir.a
	$$(SAY) "  LINK  $$@"
	$$(Q)$(CC) -pthread $(2) $(addprefix -Wl$(COMMA)--wrap=,$(SIM_WRAPS)) -o $$@ $$^ \
		$(filter-out -luring,$(LIBS)) $(3)
endef

$(eval $(call variant,release,$(CC),$(CFLAGS) $(LTO_$(LTO)),$(LDFLAGS)))
$(eval $(call variant,debug,$(CC),$(DEBUG),$(LDFLAGS)))
# The fuzz drivers are of codecs, which know nothing above session.
$(eval $(call variant,fuzz,clang,-O1 $(CHECKED) -fsanitize=fuzzer-no-link,,$(addprefix \
	src/,config/% service/% proxy/% control/%)))
$(eval $(call unit,release,-fno-lto $(LINK_UNIT),$(JEMALLOC)))
$(eval $(call unit,debug,$(SANITIZE) $(LINK_UNIT),))
$(eval $(call simulation,release,-fno-lto $(LDFLAGS),$(JEMALLOC)))
$(eval $(call simulation,debug,$(SANITIZE) $(LDFLAGS),))

$(BUILD)/weir: $(BUILD)/release/src/main.o $(BUILD)/release/libweir.a
	$(SAY) "  LINK  $@"
	$(Q)$(CC) -pthread $(CFLAGS) $(LTO_$(LTO)) $(LDFLAGS) -o $@ $^ $(LIBS) $(JEMALLOC)

$(BUILD)/debug/weir: $(BUILD)/debug/src/main.o $(BUILD)/debug/libweir.a
	$(SAY) "  LINK  $@"
	$(Q)$(CC) -pthread $(SANITIZE) $(LDFLAGS) -o $@ $^ $(LIBS)

# A fuzz driver and its corpus have one name: tests/fuzz/NAME_fuzz.c, tests/fuzz/corpus/NAME/.
$(BUILD)/fuzz/tests/fuzz/%_fuzz: $(BUILD)/fuzz/tests/fuzz/%_fuzz.o $(BUILD)/fuzz/libweir.a
	$(SAY) "  LINK  $@"
	$(Q)clang -pthread $(SANITIZE) -fsanitize=fuzzer -o $@ $^ $(LIBS)

fuzz-programs: $(addprefix $(BUILD)/fuzz/,$(FUZZERS))
.PHONY: fuzz-programs
.SECONDARY: $(patsubst %,$(BUILD)/fuzz/%.o,$(FUZZERS))

run: ## installs what is missing, builds, and starts weir with etc/weir.ini
	@tools/setup build
	@$(MAKE) $(BUILD)/weir
	$(BUILD)/weir -c etc/weir.ini

test: ## installs what is missing, then builds and tests everything
	@tools/setup test
	@tests/run

unit: ## the unit tests, also under the sanitizers
	@tools/setup test
	@tests/run unit

behaviour: ## the behaviour tests, also under the sanitizers; PYTEST="-k name" selects
	@tools/setup test
	@PYTEST='$(PYTEST)' tests/run behaviour

vm: ## the behaviour tests on Debian's own kernel, in a virtual machine; PYTEST="-k name" selects
	@tools/setup vm
	@$(MAKE) $(BUILD)/weir
	@tests/vm/run $(PYTEST)

sim: $(BUILD)/release/sim ## SEEDS=500 simulated runs; SEED=n one of them, V=1 with its trace
ifdef SEED
	$(BUILD)/release/sim --seed $(SEED) $(if $(filter 0,$(V)),,--trace) $(SIM)
else
	$(BUILD)/release/sim --seeds $(SEEDS) $(SIM)
endif

fuzz: ## every fuzz driver for SECONDS=60
	@tools/setup test
	@SECONDS_PER_FUZZER=$(SECONDS) tests/run fuzz

tidy: ## the rules that a compiler does not know
	@tools/tidy

bench: ## weir beside nginx, haproxy and h2o; BENCH="..." is given to perf/bench
	@tools/setup bench
	@$(MAKE) $(BUILD)/weir
	perf/bench $(BENCH)

format: ## clang-format on every C file
	clang-format -i $$(find src tests perf -name '*.[ch]')

install: $(BUILD)/weir ## into $(DESTDIR)$(PREFIX); an existing weir.ini stays
	install -D -m 755 $(BUILD)/weir $(DESTDIR)$(PREFIX)/bin/weir
	test -e $(DESTDIR)/etc/weir/weir.ini || \
		install -D -m 644 etc/weir.ini $(DESTDIR)/etc/weir/weir.ini
	install -m 644 etc/README.md etc/METRICS.md $(DESTDIR)/etc/weir

clean: ## removes build/
	rm -rf $(BUILD)

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile
