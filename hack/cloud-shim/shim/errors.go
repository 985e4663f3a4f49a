package shim

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"

	pb "quarterdeck.dev/hack/cloud-shim/cloudproviderv1"
)

const (
	// domain is that of the protocol's errors.
	domain = "quarterdeck.dev"
	// longest is the length of a message at most, in bytes: it travels in trailers.
	longest = 1024
)

// code is the status code that goes with a reason.
func code(reason pb.ErrorReason) codes.Code {
	switch reason {
	case pb.ErrorReason_ERROR_REASON_NOT_FOUND:
		return codes.NotFound
	case pb.ErrorReason_ERROR_REASON_NOT_IMPLEMENTED:
		return codes.Unimplemented
	case pb.ErrorReason_ERROR_REASON_IMPLEMENTED_ELSEWHERE, pb.ErrorReason_ERROR_REASON_SUPERSEDED:
		return codes.FailedPrecondition
	case pb.ErrorReason_ERROR_REASON_RETRY_AFTER, pb.ErrorReason_ERROR_REASON_UNAVAILABLE:
		return codes.Unavailable
	case pb.ErrorReason_ERROR_REASON_TIMEOUT:
		return codes.DeadlineExceeded
	case pb.ErrorReason_ERROR_REASON_INVALID:
		return codes.InvalidArgument
	default:
		return codes.Unknown
	}
}

// reasonOf says what an error of a provider is, wrapped or not, and after which time to try again, if it says so.
func reasonOf(err error) (pb.ErrorReason, time.Duration) {
	var retry *api.RetryError
	switch {
	case errors.As(err, &retry):
		return pb.ErrorReason_ERROR_REASON_RETRY_AFTER, retry.RetryAfter()
	case errors.Is(err, cloudprovider.InstanceNotFound):
		return pb.ErrorReason_ERROR_REASON_NOT_FOUND, 0
	case errors.Is(err, cloudprovider.ImplementedElsewhere):
		return pb.ErrorReason_ERROR_REASON_IMPLEMENTED_ELSEWHERE, 0
	case errors.Is(err, cloudprovider.NotImplemented):
		return pb.ErrorReason_ERROR_REASON_NOT_IMPLEMENTED, 0
	case errors.Is(err, context.DeadlineExceeded):
		return pb.ErrorReason_ERROR_REASON_TIMEOUT, 0
	case errors.Is(err, context.Canceled):
		return pb.ErrorReason_ERROR_REASON_UNAVAILABLE, 0
	default:
		return pb.ErrorReason_ERROR_REASON_OTHER, 0
	}
}

// shortened is a message that fits into a trailer.
func shortened(message string) string {
	message = strings.ToValidUTF8(message, "?")
	if len(message) <= longest {
		return message
	}
	end := longest
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + "…"
}

// failure is an error of the protocol.
func failure(reason pb.ErrorReason, message string, more ...protoadapt.MessageV1) error {
	return detailed(reason, message, nil, more...)
}

func detailed(reason pb.ErrorReason, message string, metadata map[string]string, more ...protoadapt.MessageV1) error {
	word := strings.TrimPrefix(reason.String(), "ERROR_REASON_")
	info := &errdetails.ErrorInfo{Reason: word, Domain: domain, Metadata: metadata}
	plain := status.New(code(reason), shortened(message))
	rich, err := plain.WithDetails(append([]protoadapt.MessageV1{info}, more...)...)
	if err != nil {
		return plain.Err()
	}
	return rich.Err()
}

// errorOf gives an error of a provider its form; one that has a form keeps it.
func errorOf(ctx context.Context, err error, changes bool) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	reason, after := reasonOf(err)
	switch reason {
	case pb.ErrorReason_ERROR_REASON_RETRY_AFTER:
		return failure(reason, err.Error(), &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	case pb.ErrorReason_ERROR_REASON_TIMEOUT:
		applied := "false"
		if changes {
			applied = "true"
		}
		return detailed(reason, err.Error(), map[string]string{"maybe_applied": applied})
	default:
		return failure(reason, err.Error())
	}
}

// nodeError is an error about one node.
func nodeError(err error) *pb.NodeError {
	reason, after := reasonOf(err)
	told := &pb.NodeError{Reason: reason, Message: shortened(err.Error())}
	if after > 0 {
		told.RetryAfter = durationpb.New(after)
	}
	return told
}
