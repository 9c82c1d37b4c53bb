; A rotation by shifts is the rotation, for every number and distance.
(set-logic QF_BV)
(declare-const x (_ BitVec 16))
(define-fun turned () (_ BitVec 16)
  (bvor (bvshl x (_ bv5 16)) (bvlshr x (bvsub (_ bv16 16) (_ bv5 16)))))
(assert (not (= turned ((_ rotate_left 5) x))))
(check-sat)
