// Package volumes makes what a guest's disks and shares need before QEMU starts:
// overlays over images that are not the guest's to write, empty disks,
// cloud-init images, and virtiofsd for shared folders.
//
// It is for the supervisor. Where the volumes are is package domain's contract
// (domain.PlaceVolumes); this package looks at the files there and makes those
// that the launcher owns.
//
// Traps:
//   - An image's format is told by its first bytes here and stated to QEMU: QEMU
//     must never guess it, since a guest can write a header into a raw disk.
//   - virtiofsd outlives the supervisor, as QEMU does: PID 1 becomes its parent.
//   - Cloud-init data may hold secrets; the image is readable by this user only.
package volumes
