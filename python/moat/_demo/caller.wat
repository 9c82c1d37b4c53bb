;; The demo's caller: sends one GET request and says what came back.
;;
;;   caller HOST[:PORT] PATH [HEADER VALUE]     over HTTPS; the status on a line, then the body
;;
;; What is refused is told on standard error by its name in `error-code` of `wasi:http`, and ends
;; the command with 1, as wrong usage does. It is a component for WASI 0.2.
;;
;; Build, in this directory (the Python package `wasmtime`, of which only this is used):
;;   python -c 'import pathlib as p, wasmtime as w
;;   p.Path("caller.wasm").write_bytes(w.wat2wasm(p.Path("caller.wat").read_text()))'
(component
  (import "wasi:cli/environment@0.2.0" (instance $environment
    (export "get-arguments" (func (result (list string))))))
  (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $io-err))
  (import "wasi:io/poll@0.2.0" (instance $poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:io/streams@0.2.0" (instance $streams
    (export "error" (type $err (eq $io-err)))
    (type $se' (variant (case "last-operation-failed" (own $err)) (case "closed")))
    (export "stream-error" (type $se (eq $se')))
    (export "input-stream" (type $in (sub resource)))
    (export "output-stream" (type $out (sub resource)))
    (export "[method]input-stream.blocking-read" (func
      (param "self" (borrow $in)) (param "len" u64) (result (result (list u8) (error $se)))))
    (export "[method]output-stream.blocking-write-and-flush" (func
      (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $se)))))))
  (alias export $streams "input-stream" (type $input-stream))
  (alias export $streams "output-stream" (type $output-stream))
  (import "wasi:cli/stdout@0.2.0" (instance $stdout
    (export "output-stream" (type $o (eq $output-stream)))
    (export "get-stdout" (func (result (own $o))))))
  (import "wasi:cli/stderr@0.2.0" (instance $stderr
    (export "output-stream" (type $o (eq $output-stream)))
    (export "get-stderr" (func (result (own $o))))))
  (import "wasi:http/types@0.2.0" (instance $types
    (export "pollable" (type $pollable2 (eq $pollable)))
    (export "input-stream" (type $input (eq $input-stream)))
    (export "fields" (type $fields (sub resource)))
    (export "outgoing-request" (type $request (sub resource)))
    (export "request-options" (type $options (sub resource)))
    (export "incoming-response" (type $response (sub resource)))
    (export "incoming-body" (type $incoming-body (sub resource)))
    (export "future-incoming-response" (type $future (sub resource)))
    (type $header' (variant (case "invalid-syntax") (case "forbidden") (case "immutable")))
    (export "header-error" (type $header (eq $header')))
    (type $name' string) (export "field-name" (type $name (eq $name')))
    (type $value' (list u8)) (export "field-value" (type $value (eq $value')))
    (type $dns' (record (field "rcode" (option string)) (field "info-code" (option u16))))
    (export "DNS-error-payload" (type $dns (eq $dns')))
    (type $tls' (record (field "alert-id" (option u8)) (field "alert-message" (option string))))
    (export "TLS-alert-received-payload" (type $tls (eq $tls')))
    (type $field' (record (field "field-name" (option string)) (field "field-size" (option u32))))
    (export "field-size-payload" (type $field (eq $field')))
    (type $error' (variant
      (case "DNS-timeout") (case "DNS-error" $dns) (case "destination-not-found")
      (case "destination-unavailable") (case "destination-IP-prohibited")
      (case "destination-IP-unroutable") (case "connection-refused")
      (case "connection-terminated") (case "connection-timeout") (case "connection-read-timeout")
      (case "connection-write-timeout") (case "connection-limit-reached")
      (case "TLS-protocol-error") (case "TLS-certificate-error") (case "TLS-alert-received" $tls)
      (case "HTTP-request-denied") (case "HTTP-request-length-required")
      (case "HTTP-request-body-size" (option u64)) (case "HTTP-request-method-invalid")
      (case "HTTP-request-URI-invalid") (case "HTTP-request-URI-too-long")
      (case "HTTP-request-header-section-size" (option u32))
      (case "HTTP-request-header-size" (option $field))
      (case "HTTP-request-trailer-section-size" (option u32))
      (case "HTTP-request-trailer-size" $field) (case "HTTP-response-incomplete")
      (case "HTTP-response-header-section-size" (option u32))
      (case "HTTP-response-header-size" $field) (case "HTTP-response-body-size" (option u64))
      (case "HTTP-response-trailer-section-size" (option u32))
      (case "HTTP-response-trailer-size" $field)
      (case "HTTP-response-transfer-coding" (option string))
      (case "HTTP-response-content-coding" (option string)) (case "HTTP-response-timeout")
      (case "HTTP-upgrade-failed") (case "HTTP-protocol-error") (case "loop-detected")
      (case "configuration-error") (case "internal-error" (option string))))
    (export "error-code" (type $error (eq $error')))
    (export "[constructor]fields" (func (result (own $fields))))
    (export "[method]fields.append" (func (param "self" (borrow $fields)) (param "name" $name)
      (param "value" $value) (result (result (error $header)))))
    (export "[constructor]outgoing-request" (func
      (param "headers" (own $fields)) (result (own $request))))
    (export "[method]outgoing-request.set-path-with-query" (func (param "self" (borrow $request))
      (param "path-with-query" (option string)) (result (result))))
    (export "[method]outgoing-request.set-authority" (func (param "self" (borrow $request))
      (param "authority" (option string)) (result (result))))
    (export "[method]future-incoming-response.subscribe" (func
      (param "self" (borrow $future)) (result (own $pollable2))))
    (export "[method]future-incoming-response.get" (func (param "self" (borrow $future))
      (result (option (result (result (own $response) (error $error)))))))
    (export "[method]incoming-response.status" (func
      (param "self" (borrow $response)) (result u16)))
    (export "[method]incoming-response.consume" (func
      (param "self" (borrow $response)) (result (result (own $incoming-body)))))
    (export "[method]incoming-body.stream" (func
      (param "self" (borrow $incoming-body)) (result (result (own $input)))))))
  (alias export $types "outgoing-request" (type $request))
  (alias export $types "request-options" (type $options))
  (alias export $types "future-incoming-response" (type $future))
  (alias export $types "error-code" (type $error))
  (import "wasi:http/outgoing-handler@0.2.0" (instance $handler
    (export "outgoing-request" (type $r (eq $request)))
    (export "request-options" (type $o (eq $options)))
    (export "future-incoming-response" (type $f (eq $future)))
    (export "error-code" (type $e (eq $error)))
    (export "handle" (func (param "request" (own $r)) (param "options" (option (own $o)))
      (result (result (own $f) (error $e)))))))

  ;; What the host gives lies from 8192 on; below are scratch (64, 128) and the texts (1024).
  (core module $store
    (memory (export "memory") 4)
    (global $top (export "top") (mut i32) (i32.const 8192))
    (func (export "realloc") (param i32 i32 i32) (param $size i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $top) (i32.const 7)) (i32.const -8)))
      (global.set $top (i32.add (local.get $at) (local.get $size)))
      (if (i32.gt_u (global.get $top) (i32.const 262144)) (then (unreachable)))
      (local.get $at)))
  (core instance $s (instantiate $store))
  (alias core export $s "memory" (core memory $memory))
  (alias core export $s "realloc" (core func $realloc))

  (core func $arguments (canon lower (func $environment "get-arguments")
    (memory $memory) (realloc $realloc)))
  (core func $stdout (canon lower (func $stdout "get-stdout")))
  (core func $stderr (canon lower (func $stderr "get-stderr")))
  (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
    (memory $memory)))
  (core func $read (canon lower (func $streams "[method]input-stream.blocking-read")
    (memory $memory) (realloc $realloc)))
  (core func $block (canon lower (func $poll "[method]pollable.block")))
  (core func $fields (canon lower (func $types "[constructor]fields")))
  (core func $append (canon lower (func $types "[method]fields.append") (memory $memory)))
  (core func $request (canon lower (func $types "[constructor]outgoing-request")))
  (core func $path (canon lower
    (func $types "[method]outgoing-request.set-path-with-query") (memory $memory)))
  (core func $authority (canon lower
    (func $types "[method]outgoing-request.set-authority") (memory $memory)))
  (core func $subscribe (canon lower (func $types "[method]future-incoming-response.subscribe")))
  (core func $get (canon lower (func $types "[method]future-incoming-response.get")
    (memory $memory) (realloc $realloc)))
  (core func $status (canon lower (func $types "[method]incoming-response.status")))
  (core func $consume (canon lower (func $types "[method]incoming-response.consume")
    (memory $memory)))
  (core func $stream (canon lower (func $types "[method]incoming-body.stream") (memory $memory)))
  (core func $handle (canon lower (func $handler "handle") (memory $memory) (realloc $realloc)))

  (core module $m
    (import "h" "memory" (memory 4))
    (import "h" "top" (global $top (mut i32)))
    (import "h" "arguments" (func $arguments (param i32)))
    (import "h" "stdout" (func $stdout (result i32)))
    (import "h" "stderr" (func $stderr (result i32)))
    (import "h" "write" (func $write (param i32 i32 i32 i32)))
    (import "h" "read" (func $read (param i32 i64 i32)))
    (import "h" "block" (func $block (param i32)))
    (import "h" "fields" (func $fields (result i32)))
    (import "h" "append" (func $append (param i32 i32 i32 i32 i32 i32)))
    (import "h" "request" (func $request (param i32) (result i32)))
    (import "h" "path" (func $path (param i32 i32 i32 i32) (result i32)))
    (import "h" "authority" (func $authority (param i32 i32 i32 i32) (result i32)))
    (import "h" "subscribe" (func $subscribe (param i32) (result i32)))
    (import "h" "get" (func $get (param i32 i32)))
    (import "h" "status" (func $status (param i32) (result i32)))
    (import "h" "consume" (func $consume (param i32 i32)))
    (import "h" "stream" (func $stream (param i32 i32)))
    (import "h" "handle" (func $handle (param i32 i32 i32 i32)))
    (global $args (mut i32) (i32.const 0))
    ;; The names of `error-code`, in its order; then what else goes wrong.
    (data (i32.const 1024)
      "DNS-timeout\nDNS-error\ndestination-not-found\ndestination-unavailable\n"
      "destination-IP-prohibited\ndestination-IP-unroutable\nconnection-refused\n"
      "connection-terminated\nconnection-timeout\nconnection-read-timeout\n"
      "connection-write-timeout\nconnection-limit-reached\nTLS-protocol-error\n"
      "TLS-certificate-error\nTLS-alert-received\nHTTP-request-denied\n"
      "HTTP-request-length-required\nHTTP-request-body-size\nHTTP-request-method-invalid\n"
      "HTTP-request-URI-invalid\nHTTP-request-URI-too-long\n"
      "HTTP-request-header-section-size\nHTTP-request-header-size\n"
      "HTTP-request-trailer-section-size\nHTTP-request-trailer-size\n"
      "HTTP-response-incomplete\nHTTP-response-header-section-size\n"
      "HTTP-response-header-size\nHTTP-response-body-size\n"
      "HTTP-response-trailer-section-size\nHTTP-response-trailer-size\n"
      "HTTP-response-transfer-coding\nHTTP-response-content-coding\nHTTP-response-timeout\n"
      "HTTP-upgrade-failed\nHTTP-protocol-error\nloop-detected\nconfiguration-error\n"
      "internal-error\n"
      "header\nbody\nusage\n")
    (data (i32.const 960) "refused: ")

    ;; Where an argument's text is, and how long it is.
    (func $text (param $n i32) (result i32 i32)
      (local $at i32)
      (local.set $at (i32.add (global.get $args) (i32.shl (local.get $n) (i32.const 3))))
      (i32.load (local.get $at))
      (i32.load (i32.add (local.get $at) (i32.const 4))))

    ;; Tells the line of this number among the names, and gives 1.
    (func $refused (param $line i32) (result i32)
      (local $at i32) (local $end i32) (local $to i32)
      (local.set $at (i32.const 1024))
      (block $found (loop $next
        (local.set $end (local.get $at))
        (loop $on
          (local.set $end (i32.add (local.get $end) (i32.const 1)))
          (br_if $on (i32.ne (i32.load8_u (i32.sub (local.get $end) (i32.const 1)))
                             (i32.const 10))))
        (br_if $found (i32.eqz (local.get $line)))
        (local.set $line (i32.sub (local.get $line) (i32.const 1)))
        (local.set $at (local.get $end))
        (br $next)))
      (local.set $to (call $stderr))
      (call $write (local.get $to) (i32.const 960) (i32.const 9) (i32.const 128))
      (call $write (local.get $to) (local.get $at) (i32.sub (local.get $end) (local.get $at))
        (i32.const 128))
      (i32.const 1))

    ;; The status and a line's end.
    (func $head (param $status i32) (param $to i32)
      (i32.store8 (i32.const 64)
        (i32.add (i32.const 48) (i32.div_u (local.get $status) (i32.const 100))))
      (i32.store8 (i32.const 65) (i32.add (i32.const 48)
        (i32.rem_u (i32.div_u (local.get $status) (i32.const 10)) (i32.const 10))))
      (i32.store8 (i32.const 66)
        (i32.add (i32.const 48) (i32.rem_u (local.get $status) (i32.const 10))))
      (i32.store8 (i32.const 67) (i32.const 10))
      (call $write (local.get $to) (i32.const 64) (i32.const 4) (i32.const 128)))

    ;; Passes all of the body on. The numbers of `refused` follow those of `error-code`.
    (func $body (param $response i32) (param $to i32) (result i32)
      (local $from i32) (local $begin i32)
      (call $consume (local.get $response) (i32.const 128))
      (call $stream (i32.load (i32.const 132)) (i32.const 128))
      (local.set $from (i32.load (i32.const 132)))
      (local.set $begin (global.get $top))
      (loop $again
        (global.set $top (local.get $begin))
        (call $read (local.get $from) (i64.const 4096) (i32.const 128))
        (if (i32.eqz (i32.load8_u (i32.const 128))) (then
          (call $write (local.get $to) (i32.load (i32.const 132)) (i32.load (i32.const 136))
            (i32.const 128))
          (br $again))))
      (if (i32.eqz (i32.load8_u (i32.const 132))) (then (return (call $refused (i32.const 40)))))
      (i32.const 0))

    (func (export "run") (result i32)
      (local $count i32) (local $r i32) (local $to i32)
      (call $arguments (i32.const 64))
      (global.set $args (i32.load (i32.const 64)))
      (local.set $count (i32.load (i32.const 68)))
      (if (i32.and (i32.ne (local.get $count) (i32.const 3))
                   (i32.ne (local.get $count) (i32.const 5)))
        (then (return (call $refused (i32.const 41)))))
      (local.set $r (call $fields))
      (if (i32.eq (local.get $count) (i32.const 5)) (then
        (call $append (local.get $r) (call $text (i32.const 3)) (call $text (i32.const 4))
          (i32.const 128))
        (if (i32.load8_u (i32.const 128)) (then (return (call $refused (i32.const 39)))))))
      (local.set $r (call $request (local.get $r)))
      (drop (call $authority (local.get $r) (i32.const 1) (call $text (i32.const 1))))
      (drop (call $path (local.get $r) (i32.const 1) (call $text (i32.const 2))))
      (call $handle (local.get $r) (i32.const 0) (i32.const 0) (i32.const 128))
      (if (i32.load8_u (i32.const 128))
        (then (return (call $refused (i32.load8_u (i32.const 136))))))
      (local.set $r (i32.load (i32.const 136)))
      (call $block (call $subscribe (local.get $r)))
      (call $get (local.get $r) (i32.const 128))
      (if (i32.load8_u (i32.const 144))
        (then (return (call $refused (i32.load8_u (i32.const 152))))))
      (local.set $r (i32.load (i32.const 152)))
      (local.set $to (call $stdout))
      (call $head (call $status (local.get $r)) (local.get $to))
      (call $body (local.get $r) (local.get $to))))

  (core instance $i (instantiate $m (with "h" (instance
    (export "memory" (memory $memory)) (export "top" (global $s "top"))
    (export "arguments" (func $arguments)) (export "stdout" (func $stdout))
    (export "stderr" (func $stderr)) (export "write" (func $write)) (export "read" (func $read))
    (export "block" (func $block)) (export "fields" (func $fields))
    (export "append" (func $append)) (export "request" (func $request))
    (export "path" (func $path)) (export "authority" (func $authority))
    (export "subscribe" (func $subscribe)) (export "get" (func $get))
    (export "status" (func $status)) (export "consume" (func $consume))
    (export "stream" (func $stream)) (export "handle" (func $handle))))))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (instance $run (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $run)))
