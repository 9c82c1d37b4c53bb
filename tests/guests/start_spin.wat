;; Loops for ever before `_start`, while it is being instantiated.
(module
  (memory (export "memory") 1)
  (func $early (loop $again (br $again)))
  (start $early)
  (func (export "_start")))
